/// What a source lets a reader do for a while, as it says it when the lease begins and with each renewal.
public struct LeaseState: Hashable, Sendable {
    /// Seconds until the lease ends, unless it is renewed.
    public let secondsLeft: Double
    /// Whether this reader reads now. A source is read by one at a time; the others wait for their turn and
    /// read from ``readers`` meanwhile.
    public let isActive: Bool
    /// Other readers of the same bytes that can be read from, as URLs of their daemons.
    public let readers: [String]
    /// Which chunks are there, as runs of places in the order of delivery; `nil` for all.
    public let arrived: [Range<Int>]?
    /// Where the source's transfer engine is reached.
    public let session: String
    /// The address of each shard's data section in the source's transfer engine.
    public let addresses: [UInt]

    public init(
        secondsLeft: Double, isActive: Bool, readers: [String], arrived: [Range<Int>]?,
        session: String, addresses: [UInt]
    ) {
        self.secondsLeft = secondsLeft
        self.isActive = isActive
        self.readers = readers
        self.arrived = arrived
        self.session = session
        self.addresses = addresses
    }
}

/// The beginning of a lease: its state, and what is read.
public struct SourceLease: Hashable, Sendable {
    public static let version = 1

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
