import CheckpointModel
import CheckpointNative
import CheckpointPlan
import CheckpointWorker

extension UpdateJob {
    /// Brings the weights to the workers of `endpoints`, by engine; `gather` are the copies that run beside
    /// the link where the workers are on GPUs.
    func deliver(
        endpoints: [[WorkerEndpoint]], through gather: RunningGather?,
        with update: HostUpdate? = nil
    ) async throws(WorkerError) {
        let (bound, boundContinuation) = AsyncStream.makeStream(of: Bool.self)
        let configuration = linkConfiguration(endpoints.flatMap(\.self), gather)
        let arrivals = followArrivals(configuration.schedule.buckets, gather)
        defer { arrivals?() }
        let follower = LinkFollower(
            record: record, endpoints: configuration.endpoints, registered: registered,
            gather: gather, update: update,
            delivered: delivered(configuration.schedule.buckets), signal: signal,
            bound: boundContinuation)
        let failure: WorkerError? = await withTaskGroup(of: Ending.self) { group in
            group.addTask { .answered(await callEngines(endpoints, bound: bound)) }
            let linkFailure = await link(configuration, follower, boundContinuation)
            if let linkFailure, clientCalls != nil {
                // The client hears of the failure from the update, and ends its calls itself.
                group.cancelAll()
                return linkFailure
            }
            // The engines' answers follow their workers' last words; a call that hangs is ended.
            group.addTask {
                do {
                    try await Task.sleep(for: Self.answerGrace)
                    return .graceOver
                } catch {
                    return .answered(WorkerError(.cancelled, "the update was cancelled"))
                }
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
        _ configuration: WorkerLink.Configuration, _ follower: LinkFollower,
        _ bound: AsyncStream<Bool>.Continuation
    ) async -> WorkerError? {
        // Nobody waits for sockets that are not bound.
        defer { bound.finish() }
        do throws(WorkerError) {
            let loads = try await BlockingThread.run("ckpt-link") { () throws(WorkerError) in
                try WorkerLink.run(
                    configuration, context: context, signal: signal, observer: follower)
            }
            record.keep(loads)
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
        if let clientCalls {
            return await ended(clientCalls, endpoints.flatMap(\.self))
        }
        return await withTaskGroup(of: WorkerError?.self) { group in
            for (engine, endpoints) in zip(engines, endpoints) {
                group.addTask { await call(engine.address, endpoints) }
            }
            return await group.reduce(nil) { $0 ?? $1 }
        }
    }

    /// Gives the addresses to the client, and waits until its calls have ended.
    private func ended(_ calls: ClientCalls, _ endpoints: [WorkerEndpoint]) async -> WorkerError? {
        calls.open(endpoints.map(\.address))
        if let failure = await calls.ended() {
            signal.fail(failure)
            return failure
        }
        for endpoint in endpoints { signal.engineAnswered(endpoint.engine) }
        return nil
    }

    private func call(_ engine: EngineAddress, _ endpoints: [WorkerEndpoint]) async -> WorkerError?
    {
        do throws(WorkerError) {
            try await client.update(
                engine, addresses: endpoints.map { ($0.id, $0.address) },
                timeout: remaining + Self.callGrace, orders: orders)
            signal.engineAnswered(engine.description)
            return nil
        } catch {
            // A worker that is lost or has failed says more, and its engine may be faster.
            if error.code == .engineFailed { try? await Task.sleep(for: Self.causeGrace) }
            signal.fail(error)
            return error
        }
    }

    private func linkConfiguration(_ endpoints: [WorkerEndpoint], _ gather: RunningGather?)
        -> WorkerLink.Configuration
    {
        WorkerLink.Configuration(
            update: id, checkpoint: checkpoint.description, endpoints: endpoints,
            memory: gather.map { .cuda($0.delivery.workerRings) } ?? .host(registered.locations),
            tensors: gather?.delivery.plan.tensors ?? registered.catalog.tensors,
            schedule: schedule(gather), deadline: deadline,
            counters: gather?.counters, catalogBody: gather?.delivery.plan.catalogBody,
            repeatingEngines: repeatingEngines(endpoints),
            // When a client makes its calls only the client knows.
            handshakeGrace: clientCalls == nil ? Self.handshakeGrace : nil,
            repeatGrace: clientCalls == nil ? .zero : Self.clientRepeatGrace)
    }

    /// What a client's engines are only the client knows: each of its workers may come back.
    private func repeatingEngines(_ endpoints: [WorkerEndpoint]) -> Set<String> {
        guard clientCalls == nil else { return Set(endpoints.map(\.engine)) }
        return Set(engines.map(\.address).filter(\.repeatsSessions).map(\.description))
    }

    /// How long workers may take to come. Engines may finish running requests first.
    private static let handshakeGrace = Duration.seconds(120)
    private static let clientRepeatGrace = Duration.milliseconds(300)

    /// What is delivered when. Before a worker makes its weights valid, files that are used in place are
    /// looked at: workers of the known protocol do so at the release.
    private func schedule(_ gather: RunningGather?) -> DeliverySchedule {
        let schedule = gather?.delivery.plan.schedule ?? hostSchedule
        guard registered.usesFilesInPlace else { return schedule }
        return DeliverySchedule(
            buckets: schedule.buckets, availableCount: schedule.availableCount,
            gates: schedule.gates.union(LinkFollower.checks))
    }

    private var hostSchedule: DeliverySchedule {
        let buckets = registered.buckets.map {
            DeliverySchedule.Bucket(first: $0.first, count: $0.count, byteCount: $0.byteCount)
        }
        return DeliverySchedule(
            buckets: buckets, availableCount: isStreaming ? 0 : buckets.count)
    }
}
