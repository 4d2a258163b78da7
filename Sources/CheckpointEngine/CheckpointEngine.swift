public import CheckpointModel
public import Logging

/// Register · gather · update: the public face of the engine, and the only place that composes the
/// targets underneath. All blocking work runs on threads of its own.
public actor CheckpointEngine {
    let configuration: EngineConfiguration
    let logger: Logger

    /// Checks the directories, sweeps what a killed daemon left behind, loads ZeroMQ.
    public init(configuration: EngineConfiguration, logger: Logger) throws(EngineError) {
        self.configuration = configuration
        self.logger = logger
        fatalError("in progress")
    }

    /// Registers the checkpoint that `paths` name (safetensors files, directories or index files)
    /// under a free name. `progress` gets bytes done and bytes in all, at most ten times a second.
    /// With `consumes`, files in shared memory are deleted when the checkpoint is unregistered,
    /// provided that an update from it has succeeded.
    @discardableResult
    public func register(
        _ name: CheckpointName, paths: [String], consumes: Bool = false,
        progress: (@Sendable (_ done: Int, _ total: Int) -> Void)? = nil
    ) async throws(EngineError) -> CheckpointSummary { fatalError("in progress") }

    /// Forgets the checkpoint. Its memory is kept for the next version of equal layout, unless
    /// `releasesMemory` gives it back to the system.
    public func unregister(_ name: CheckpointName, releasesMemory: Bool = false)
        async throws(EngineError)
    { fatalError("in progress") }

    public func checkpoints() -> [CheckpointSummary] { fatalError("in progress") }

    public func checkpoint(_ name: CheckpointName) throws(EngineError) -> CheckpointSummary {
        fatalError("in progress")
    }

    /// Publishes the checkpoint's metas: from here on ``metas()`` describes it.
    @discardableResult
    public func gatherMetas(_ name: CheckpointName) throws(EngineError) -> MetasDocument {
        fatalError("in progress")
    }

    /// The metas that were gathered last; empty before.
    public func metas() -> MetasDocument { fatalError("in progress") }

    /// Starts an update and returns its first status at once. One update runs at a time on a
    /// worker's engine; a second for a checkpoint or engine that is being updated is refused.
    /// The update goes on when its caller goes away.
    public func startUpdate(_ name: CheckpointName, _ request: UpdateRequest)
        throws(EngineError) -> UpdateStatus
    { fatalError("in progress") }

    /// Waits until the update has ended. Returns the final status, also of a failed update.
    /// Cancelling the waiting task ends the wait, not the update.
    public func finishedUpdate(_ id: String) async throws(EngineError) -> UpdateStatus {
        fatalError("in progress")
    }

    public func update(_ id: String) throws(EngineError) -> UpdateStatus {
        fatalError("in progress")
    }

    /// Ends a running update with ``EngineError/Code/cancelled``.
    public func cancelUpdate(_ id: String, reason: String) throws(EngineError) {
        fatalError("in progress")
    }

    public func statistics() -> EngineStatistics { fatalError("in progress") }

    /// Cancels what runs, waits for it, and removes every socket and file that the engine made.
    public func shutDown() async { fatalError("in progress") }
}
