/// What a worker says to the server. The definition is `docs/wire-protocol.md`.
public enum WorkerMessage: Hashable, Sendable {
    case hello(WorkerHello)
    case ready
    case loaded(index: Int, byteCount: Int, microseconds: Int)
    case released
    case committed(microseconds: Int)
    case aborted
    case error(WorkerFailure)

    /// The name of the message on the wire.
    public var type: String {
        switch self {
        case .hello: "hello"
        case .ready: "ready"
        case .loaded: "loaded"
        case .released: "released"
        case .committed: "committed"
        case .aborted: "aborted"
        case .error: "error"
        }
    }
}

public struct WorkerHello: Hashable, Sendable {
    public static let creditsAllowed = 1...64

    public let version: Int
    /// The id of its device: `CPU-0`, `GPU-…`.
    public let worker: String
    public let pid: Int
    public let software: String
    /// Buckets that may be unanswered at a time.
    public let credits: Int

    public init(version: Int, worker: String, pid: Int, software: String, credits: Int) {
        self.version = version
        self.worker = worker
        self.pid = pid
        self.software = software
        self.credits = credits
    }
}

public struct WorkerFailure: Hashable, Sendable {
    public enum Stage: String, Sendable, CaseIterable {
        case hello, catalog, bucket, release, commit
    }

    public let stage: Stage
    public let message: String
    public let traceback: String

    public init(stage: Stage, message: String, traceback: String) {
        self.stage = stage
        self.message = message
        self.traceback = traceback
    }
}
