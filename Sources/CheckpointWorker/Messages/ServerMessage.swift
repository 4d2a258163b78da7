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
    /// Where the bytes lie.
    public let memory: MemoryKind
    /// Time left for the whole update.
    public let deadlineMilliseconds: Int

    public init(
        versions: [Int] = Self.versions, update: String, checkpoint: String,
        memory: MemoryKind = .host, deadlineMilliseconds: Int
    ) {
        self.versions = versions
        self.update = update
        self.checkpoint = checkpoint
        self.memory = memory
        self.deadlineMilliseconds = deadlineMilliseconds
    }
}
