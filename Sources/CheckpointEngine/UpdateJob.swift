import CheckpointDevice
import CheckpointFiles
import CheckpointModel
import CheckpointPlan
import CheckpointWorker

/// One update from its plan to its last commit: the HTTP calls and the worker link side by side.
struct UpdateJob: Sendable {
    let id: String
    let checkpoint: CheckpointName
    let registered: RegisteredCheckpoint
    let engines: [(address: EngineAddress, workerCount: Int?)]
    let deadline: ContinuousClock.Instant
    let resetsPrefixCache: Bool
    let socketDirectory: String
    let context: ZeroMQContext
    let client: EngineClient
    let signal: LinkSignal
    let record: UpdateRecord

    /// How long engines may take to answer after the link has ended.
    private static let answerGrace = Duration.seconds(5)
    /// How much later than the link the calls time out: the link knows whom it waits for.
    private static let callGrace = Duration.seconds(2)

    private var remaining: Duration { ContinuousClock.now.duration(to: deadline) }

    /// Carries the update out; throws its first failure.
    func run() async throws(EngineError) {
        do {
            try checkFiles()
            try await deliver(endpoints: endpoints())
            record.enter(.finish)
            guard resetsPrefixCache else { return }
            for engine in engines {
                try await client.resetPrefixCache(engine.address, deadline: deadline)
            }
        } catch let error as WorkerError {
            // A call that was cancelled does not know why; whoever ended the update has told.
            let reason = error.code == .cancelled ? signal.failure : nil
            throw EngineError(reason ?? error)
        } catch let error as EngineError {
            throw error
        } catch {
            preconditionFailure("the calls above throw the two types above: \(error)")
        }
    }

    /// Files that are used in place must be those that were registered.
    private func checkFiles() throws(EngineError) {
        for shard in registered.shards where shard.isSharedMemory {
            do {
                try shard.checkUnchanged()
            } catch {
                throw EngineError(error)
            }
        }
    }

    private func endpoints() async throws(WorkerError) -> [[WorkerEndpoint]] {
        var endpoints: [[WorkerEndpoint]] = []
        for (index, engine) in engines.enumerated() {
            var count = engine.workerCount
            if count == nil {
                count = try await client.workerCount(engine.address, timeout: remaining)
            }
            endpoints.append(
                (0..<(count ?? 1)).map { rank in
                    WorkerEndpoint(
                        id: .cpu(rank: rank), engine: engine.address.description,
                        socketPath: "\(socketDirectory)/\(id)-\(index)-\(rank)")
                })
        }
        return endpoints
    }
}

// MARK: - Delivery

extension UpdateJob {
    private func deliver(endpoints: [[WorkerEndpoint]]) async throws(WorkerError) {
        let (bound, boundContinuation) = AsyncStream.makeStream(of: Bool.self)
        let configuration = linkConfiguration(endpoints.flatMap(\.self))
        let failure: WorkerError? = await withTaskGroup(of: Ending.self) { group in
            group.addTask { .answered(await callEngines(endpoints, bound: bound)) }
            let linkFailure = await link(configuration, boundContinuation)
            // The engines' answers follow their workers' last words; a call that hangs is ended.
            group.addTask {
                try? await Task.sleep(for: Self.answerGrace)
                return .graceOver
            }
            let ending = await group.next()
            group.cancelAll()
            return linkFailure ?? Self.failure(ending)
        }
        if let failure { throw failure }
    }

    /// What came first after the link had ended.
    private enum Ending {
        case answered(WorkerError?)
        case graceOver
    }

    private static func failure(_ ending: Ending?) -> WorkerError? {
        switch ending {
        case .answered(let failure): failure
        case .graceOver, nil:
            WorkerError(
                .engineFailed,
                "every worker has committed, but an engine did not answer the call that started "
                    + "the update within \(answerGrace.components.seconds) s")
        }
    }

    /// Runs the link on its thread; returns its failure.
    private func link(
        _ configuration: WorkerLink.Configuration, _ bound: AsyncStream<Bool>.Continuation
    ) async -> WorkerError? {
        do throws(WorkerError) {
            try await BlockingThread.run("ckpt-link") { () throws(WorkerError) in
                defer { bound.finish() }
                try WorkerLink.run(
                    configuration, context: context, signal: signal,
                    onBound: { bound.yield(true) },
                    onProgress: { progress, touchesWeights in
                        record.report(
                            progress, touchesWeights: touchesWeights,
                            endpoints: configuration.endpoints)
                    })
            }
            return nil
        } catch {
            return error
        }
    }

    /// Starts the reload on every engine once the sockets are bound, and returns the first failure.
    /// Failures go to the link too, which ends the update on all workers.
    private func callEngines(_ endpoints: [[WorkerEndpoint]], bound: AsyncStream<Bool>) async
        -> WorkerError?
    {
        var iterator = bound.makeAsyncIterator()
        guard await iterator.next() == true else { return nil }
        return await withTaskGroup(of: WorkerError?.self) { group in
            for (engine, endpoints) in zip(engines, endpoints) {
                group.addTask { await call(engine.address, endpoints) }
            }
            return await group.reduce(nil) { $0 ?? $1 }
        }
    }

    private func call(_ engine: EngineAddress, _ endpoints: [WorkerEndpoint]) async -> WorkerError?
    {
        do throws(WorkerError) {
            try await client.update(
                engine, addresses: endpoints.map { ($0.id, $0.address) },
                timeout: remaining + Self.callGrace)
            signal.engineAnswered(engine.description)
            return nil
        } catch {
            signal.fail(error)
            return error
        }
    }

    private func linkConfiguration(_ endpoints: [WorkerEndpoint]) -> WorkerLink.Configuration {
        WorkerLink.Configuration(
            update: id, checkpoint: checkpoint.description, endpoints: endpoints,
            catalog: CatalogMessage(
                segments: registered.locations, tensors: registered.catalog.tensors),
            schedule: DeliverySchedule(
                buckets: registered.buckets.map {
                    DeliverySchedule.Bucket(
                        first: $0.first, count: $0.count, byteCount: $0.byteCount)
                }),
            deadline: deadline)
    }
}
