import CheckpointDevice
import CheckpointFiles
import CheckpointHosts
import CheckpointModel
import CheckpointPlan
import CheckpointTransport
import CheckpointWorker

/// One update from its plan to its last commit: the HTTP calls and the worker link side by side.
struct UpdateJob: Sendable {
    let id: String
    let checkpoint: CheckpointName
    let registered: RegisteredCheckpoint
    /// None where the client calls them.
    let engines: [UpdateEngine]
    /// `nil` where this daemon calls the engines.
    let clientCalls: ClientCalls?
    let deadline: ContinuousClock.Instant
    let orders: EngineOrders
    let socketDirectory: String
    let context: ZeroMQContext
    let client: EngineClient
    let signal: LinkSignal
    let record: UpdateRecord
    /// `nil` where engines are on the CPU.
    let gpus: GPUSet?
    let exchanges: ExchangeCache
    /// The GPU that sends by vLLM's own weight transfer; `nil` goes through the worker extension.
    let nativeSender: Int?
    let nativeGroups: NativeGroups
    /// `nil` where this host updates alone.
    let hosts: HostGroup?
    let gpuConfiguration: GPUConfiguration
    let slotByteCountMax: Int

    /// How long engines may take to answer after the link has ended.
    static let answerGrace = Duration.seconds(5)
    /// How much later than the link the calls time out: the link knows whom it waits for.
    static let callGrace = Duration.seconds(2)

    var remaining: Duration { ContinuousClock.now.duration(to: deadline) }

    /// Carries the update out; throws its first failure.
    func run() async throws(EngineError) {
        let control = EngineControl(self)
        do throws(EngineError) {
            try await carryOut(control)
        } catch {
            throw await control.failed(error)
        }
    }

    private func carryOut(_ control: EngineControl) async throws(EngineError) {
        do {
            try checkFiles()
            if nativeSender != nil || hosts != nil { try await waitForArrivals() }
            try await control.begin()
            if let nativeSender {
                try await sendNatively(from: nativeSender, on: nativeGPUs())
            } else if let gpus {
                try await gather(on: gpus)
            } else {
                try await deliver(endpoints: endpoints(), through: nil)
            }
            // Workers on the host read the files until they have committed.
            if gpus == nil { try checkFiles() }
            record.enter(.finish)
            try await control.finish()
        } catch let error as WorkerError {
            // A call that was cancelled does not know why; whoever ended the update has told.
            let reason = error.code == .cancelled ? signal.failure : nil
            throw EngineError(reason ?? error)
        } catch let error as EngineError {
            throw error
        } catch let error as DeviceError {
            throw EngineError(error)
        } catch let error as HostError {
            if error.code == .cancelled, let reason = signal.failure { throw EngineError(reason) }
            throw EngineError(error)
        } catch let error as GPUSet.Refusal {
            throw EngineError(.busy, error.message)
        } catch {
            throw EngineError(.system, "the update has failed: \(error)")
        }
    }

    /// Files that are used in place must be those that were registered, with what was in them then.
    func checkFiles() throws(EngineError) {
        do throws(FilesError) { try registered.checkFiles() } catch { throw EngineError(error) }
    }

    /// One for each worker on the CPU, by engine.
    private func endpoints() async throws(WorkerError) -> [[WorkerEndpoint]] {
        if let clientCalls { return [clientEndpoints(clientCalls)] }
        var endpoints: [[WorkerEndpoint]] = []
        for (index, engine) in engines.enumerated() {
            endpoints.append(
                (0..<(try await workerCount(of: engine))).map { rank in
                    endpoint(.cpu(rank: rank), of: engine, "\(index)-\(rank)")
                })
        }
        return endpoints
    }

    func endpoint(_ id: DeviceID, of engine: UpdateEngine, _ name: String) -> WorkerEndpoint {
        WorkerEndpoint(
            id: id, engine: engine.address.description,
            socketPath: RuntimeDirectory.socketPath(
                in: socketDirectory, update: self.id, worker: name))
    }

    /// One for each worker of the client's, in its order.
    func clientEndpoints(_ calls: ClientCalls) -> [WorkerEndpoint] {
        calls.workers.enumerated().map { index, worker in
            WorkerEndpoint(
                id: worker, engine: ClientCalls.engine(of: index),
                socketPath: RuntimeDirectory.socketPath(
                    in: socketDirectory, update: id, worker: "c\(index)"))
        }
    }

    /// What the engine tells; the number that the request names has to be the same, and stands for it where
    /// the engine does not tell.
    func workerCount(of engine: UpdateEngine) async throws(WorkerError) -> Int {
        guard let named = engine.workerCount else {
            return try await client.workerCount(engine.address, timeout: remaining) ?? 1
        }
        let told: Int?
        do throws(WorkerError) {
            told = try await client.workerCount(engine.address, timeout: remaining)
        } catch {
            if error.code == .invalidArgument || error.code == .cancelled { throw error }
            told = nil
        }
        guard let told, told != named else { return named }
        throw WorkerError(
            .invalidArgument,
            "the update names \(named) workers of \(engine.address), which tells that it has \(told): "
                + "nothing was touched. Name them all, or leave their number out")
    }
}

/// One engine of an update.
struct UpdateEngine: Sendable {
    let address: EngineAddress
    /// How many workers the request names; `nil` asks the engine.
    let workerCount: Int?
    /// The GPUs of its workers, as the daemon numbers them; `nil` takes the next ones.
    let namedRanks: [Int]?

    init(_ instance: EngineInstance, at address: EngineAddress) {
        self.address = address
        namedRanks = instance.namedRanks
        workerCount = instance.workerCount ?? instance.namedRanks?.count
    }
}
