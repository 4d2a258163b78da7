public import CheckpointModel

/// What the server says to a worker. The definition is `docs/wire-protocol.md`.
public enum ServerMessage: Hashable, Sendable {
    case hello(ServerHello)
    case catalog(CatalogMessage)
    case bucket(index: Int, first: Int, count: Int)
    case release
    case commit
    case abort(reason: String)
}

public struct ServerHello: Hashable, Sendable {
    public static let protocolName = "checkpoint-engine"
    /// The versions that this implementation speaks.
    public static let versions = [1]

    public let versions: [Int]
    public let update: String
    public let checkpoint: String
    /// Time left for the whole update.
    public let deadlineMilliseconds: Int

    public init(
        versions: [Int] = Self.versions, update: String, checkpoint: String,
        deadlineMilliseconds: Int
    ) {
        self.versions = versions
        self.update = update
        self.checkpoint = checkpoint
        self.deadlineMilliseconds = deadlineMilliseconds
    }
}

/// Everything that will be delivered: tensors in the order in which buckets name them. The shard of a
/// tensor is its place in `segments`.
public struct CatalogMessage: Hashable, Sendable {
    public let segments: [SegmentLocation]
    public let tensors: [TensorEntry]

    public init(segments: [SegmentLocation], tensors: [TensorEntry]) {
        self.segments = segments
        self.tensors = tensors
    }

    public var byteCount: Int { tensors.reduce(0) { $0 + $1.range.byteCount } }
}
