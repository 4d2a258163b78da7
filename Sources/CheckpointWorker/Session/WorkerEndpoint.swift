public import CheckpointModel

/// Where one worker of an update is met.
public struct WorkerEndpoint: Hashable, Sendable {
    public let id: DeviceID
    /// The URL of the worker's engine, for messages.
    public let engine: String
    /// The unix socket that is bound for it.
    public let socketPath: String

    public init(id: DeviceID, engine: String, socketPath: String) {
        self.id = id
        self.engine = engine
        self.socketPath = socketPath
    }

    /// What the worker connects to.
    public var address: String { "ipc://\(socketPath)" }
}
