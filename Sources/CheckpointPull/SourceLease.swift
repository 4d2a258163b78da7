/// One of a source's transfer engines; each has all shards.
public struct SourceEndpoint: Hashable, Sendable {
    /// The addresses that a process can have; offsets in a shard find room behind them.
    static let addressRange = 0...(1 << 62)

    /// Where it is reached, "host:port".
    public let session: String
    /// The address of each shard's data section in it.
    public let addresses: [UInt]

    public init(session: String, addresses: [UInt]) {
        self.session = session
        self.addresses = addresses
    }
}

/// What a source lets a reader do for a while, as it says it when the lease begins and with each renewal.
public struct LeaseState: Hashable, Sendable {
    /// Seconds until the lease ends, unless it is renewed.
    public let secondsLeft: Double
    /// Whether this reader reads now. A source is read by one at a time; the others wait for their turn and
    /// read from ``readers`` meanwhile.
    public let isActive: Bool
    /// Other readers of the same bytes that can be read from, as URLs of their daemons. They carry bytes; what
    /// the bytes have to be they are not asked.
    public let readers: [String]
    /// Which chunks are there, as runs of places in the order of delivery, which rise; `nil` for all.
    public let arrived: [Range<Int>]?
    /// Names the bytes (``ContentDigest``); `nil` until the source knows all their checksums.
    public let content: String?
    /// The source's transfer engines, which are read at once; at least one.
    public let endpoints: [SourceEndpoint]

    public init(
        secondsLeft: Double, isActive: Bool, readers: [String], arrived: [Range<Int>]?,
        content: String? = nil, endpoints: [SourceEndpoint]
    ) {
        self.secondsLeft = secondsLeft
        self.isActive = isActive
        self.readers = readers
        self.arrived = arrived
        self.content = content
        self.endpoints = endpoints
    }

    /// Whether each endpoint names so many shards, and there is one.
    func names(_ shardCount: Int) -> Bool {
        !endpoints.isEmpty && endpoints.allSatisfy { $0.addresses.count == shardCount }
    }
}

/// The beginning of a lease: its state, and what is read.
public struct SourceLease: Hashable, Sendable {
    public static let version = 2

    public let id: String
    public let state: LeaseState
    /// Names these bytes: another registration under the same name has another one.
    public let incarnation: String
    /// Names the tensors and their places, equal on all hosts that hold the same.
    public let digest: String
    public let chunkByteCount: Int
    /// Bytes of each shard's data section.
    public let shardByteCounts: [Int]

    public init(
        id: String, state: LeaseState, incarnation: String, digest: String, chunkByteCount: Int,
        shardByteCounts: [Int]
    ) {
        self.id = id
        self.state = state
        self.incarnation = incarnation
        self.digest = digest
        self.chunkByteCount = chunkByteCount
        self.shardByteCounts = shardByteCounts
    }
}
