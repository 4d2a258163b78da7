/// One engine instance that an update is for: an HTTP server with its workers.
public struct EngineInstance: Hashable, Sendable {
    /// The full URL that starts the reload, for vLLM `http://HOST:PORT/collective_rpc`. A URL
    /// without a path gets that one.
    public let updateURL: String
    /// The unix socket that the engine's HTTP server listens on, instead of the URL's host and port.
    public let unixSocketPath: String?
    /// How many workers the instance has; `nil` asks the engine.
    public let workerCount: Int?
    /// The GPUs of the instance's workers, as the daemon numbers those that it sees; `nil` takes the next
    /// ones. Without meaning for workers on the CPU.
    public let ranks: [Int]?

    public init(
        updateURL: String, unixSocketPath: String? = nil, workerCount: Int? = nil,
        ranks: [Int]? = nil
    ) {
        self.updateURL = updateURL
        self.unixSocketPath = unixSocketPath
        self.workerCount = workerCount
        self.ranks = ranks
    }
}

/// What an update is asked to do.
public struct UpdateRequest: Hashable, Sendable {
    public static let timeoutSecondsDefault = 300.0
    /// A day: more is a mistake.
    public static let timeoutSecondsMax = 86_400.0

    public let instances: [EngineInstance]
    /// The deadline of the whole update, in seconds from its start.
    public let timeoutSeconds: Double
    /// Whether the engines' prefix caches are reset after the commit.
    public let resetsPrefixCache: Bool

    public init(
        instances: [EngineInstance], timeoutSeconds: Double = Self.timeoutSecondsDefault,
        resetsPrefixCache: Bool = true
    ) {
        self.instances = instances
        self.timeoutSeconds = timeoutSeconds
        self.resetsPrefixCache = resetsPrefixCache
    }
}
