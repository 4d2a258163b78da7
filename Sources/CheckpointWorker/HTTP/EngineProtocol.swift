import CheckpointJSON
import CheckpointModel

/// What one kind of engine is called with, and what its answers mean. Values of it do no I/O.
protocol EngineProtocol: Sendable {
    /// What starts a reload.
    var updatePath: String { get }
    /// Answers when the engine can be updated.
    var readinessPath: String { get }
    var workerCountPath: String { get }
    /// Whether the engine runs a whole session for each of its models, one after the other, within
    /// one call.
    var repeatsSessions: Bool { get }
    /// Ends a pause.
    var resumeCall: EngineCall { get }
    /// Asks whether memory was given up; `nil` where the engine does not tell.
    var sleepCall: EngineCall? { get }

    /// Whether an engine that answers its readiness path so can be updated.
    func isReady(_ status: Int) -> Bool

    /// How many workers the engine has; `nil` where it does not tell. Throws `invalidArgument` for an
    /// engine that cannot be updated.
    func workerCount(_ answer: EngineAnswer, of engine: EngineAddress) throws(WorkerError) -> Int?

    /// Starts the reload on all workers. `addresses` maps worker ids to the addresses of their sockets.
    func updateCall(
        addresses: [(DeviceID, String)], timeout: Duration, _ orders: EngineOrders
    ) -> EngineCall

    /// `nil` for an update that the engine calls done, else why not.
    func updateFailure(_ answer: EngineAnswer) -> String?

    /// Throws `invalidArgument` for a mode that the engine does not have.
    func pauseCall(_ mode: PauseMode, _ orders: EngineOrders) throws(WorkerError) -> EngineCall

    /// Empties the prefix cache; `nil` where the update's call has done it.
    func resetCall(_ orders: EngineOrders) -> EngineCall?

    /// Names the new weights; `nil` where the update's call has done it.
    func versionCall(_ version: String) -> EngineCall?

    /// Takes memory back that was given up.
    func wakeCall(_ part: EngineMemory) -> EngineCall

    /// What to do about a call that was refused with `status`; empty or `; …`.
    func advice(_ status: Int, _ call: EngineCall) -> String
}

/// What sleeping engines have given up.
enum EngineMemory: String, Sendable {
    case weights
    case cache = "kv_cache"
}

extension EngineKind {
    var calls: any EngineProtocol {
        switch self {
        case .vllm: VLLMProtocol()
        case .sglang: SGLangProtocol()
        }
    }
}
