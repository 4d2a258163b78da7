import CheckpointDevice
public import CheckpointModel
import CheckpointWorker
import Logging

extension CheckpointEngine {
    /// Starts an update and returns its first status at once. One update runs at a time on an
    /// engine and from a checkpoint; a second is refused. The update goes on when its caller goes away.
    public func startUpdate(_ name: CheckpointName, _ request: UpdateRequest)
        throws(EngineError) -> UpdateStatus
    {
        try checkRunning()
        let addresses = try Self.addresses(request)
        try Self.check(timeoutSeconds: request.timeoutSeconds)
        let registered = try registered(name, for: addresses)
        let engines = zip(addresses, request.instances).map { address, instance in
            UpdateEngine(instance, at: address)
        }
        return try start(
            name, registered, engines: engines, calls: nil, seconds: request.timeoutSeconds,
            orders: request.orders, nativeSender: request.nativeSender)
    }

    /// Starts the task of an update and enters it where it belongs; returns its first status. With `alone`
    /// this host does not wait for the others of its group.
    func start(
        _ name: CheckpointName, _ registered: RegisteredCheckpoint, engines: [UpdateEngine],
        calls: ClientCalls?, seconds: Double, orders: EngineOrders, nativeSender: Int? = nil,
        alone: Bool = false
    ) throws(EngineError) -> UpdateStatus {
        let hosts = alone ? nil : hosts
        if hosts != nil || nativeSender != nil { try registered.checkKept(name) }
        guard hosts != nil || !registered.catalog.tensors.isEmpty else {
            throw EngineError(
                .invalidCheckpoint,
                "\(name) has no tensors: an update from it would change nothing")
        }
        let record = UpdateRecord(Self.status(id: history.nextID(), name, registered))
        let job = UpdateJob(
            id: record.id, checkpoint: name, registered: registered, engines: engines,
            clientCalls: calls, deadline: .now + .seconds(seconds),
            orders: orders, socketDirectory: sockets.path,
            context: context, client: client, signal: try makeSignal(), record: record,
            gpus: gpus, exchanges: exchanges, nativeSender: nativeSender,
            nativeGroups: nativeGroups, hosts: hosts,
            gpuConfiguration: configuration.gpu,
            slotByteCountMax: configuration.bucketByteCountMax)
        entries[name]?.runningUpdate = record.id
        history.append(record)
        running[record.id] = RunningUpdate(
            task: Task { await self.run(job) }, signal: job.signal,
            engines: Set(engines.map(\.address.description)), clientCalls: calls)
        return record.status
    }

    /// Waits until the update has ended. Returns the final status, also of a failed update.
    /// Cancelling the waiting task ends the wait, not the update.
    public func finishedUpdate(_ id: String) async throws(EngineError) -> UpdateStatus {
        await (try record(id)).finished()
    }

    public func update(_ id: String) throws(EngineError) -> UpdateStatus {
        try record(id).status
    }

    /// Waits until the update has ended, at most `seconds`; returns the status of that moment.
    public func update(_ id: String, waitingSeconds seconds: Double) async throws(EngineError)
        -> UpdateStatus
    {
        let record = try record(id)
        return await withTaskGroup(of: UpdateStatus?.self) { group in
            group.addTask { await record.finished() }
            group.addTask {
                try? await Task.sleep(for: .seconds(seconds))
                return nil
            }
            let first = await group.next()
            group.cancelAll()
            return (first ?? nil) ?? record.status
        }
    }

    /// Ends a running update with ``EngineError/Code/cancelled``.
    public func cancelUpdate(_ id: String, reason: String) throws(EngineError) {
        _ = try record(id)
        guard let update = running[id] else {
            throw EngineError(.busy, "\(id) has ended already")
        }
        update.signal.fail(WorkerError(.cancelled, reason))
        update.task.cancel()
    }

    /// Waits until every engine answers that it is ready; `progress` is told what is waited for.
    public nonisolated func waitUntilReady(
        _ instances: [EngineInstance], timeoutSeconds: Double,
        progress: @escaping @Sendable (_ engine: String, _ lastAnswer: String) -> Void
    ) async throws(EngineError) {
        let deadline = ContinuousClock.now + .seconds(timeoutSeconds)
        for instance in instances {
            do throws(WorkerError) {
                let address = try EngineAddress(
                    instance.updateURL, unixSocketPath: instance.unixSocketPath,
                    kind: instance.kind)
                try await client.waitUntilReady(address, deadline: deadline) {
                    progress(address.description, $0)
                }
            } catch {
                throw EngineError(error)
            }
        }
    }

    private func record(_ id: String) throws(EngineError) -> UpdateRecord {
        guard let record = history[id] else {
            throw EngineError(
                .notFound,
                "there is no update \(id); the last \(configuration.updateHistoryCountMax) are kept"
            )
        }
        return record
    }
}

// MARK: - Checks

extension CheckpointEngine {
    private static func addresses(_ request: UpdateRequest) throws(EngineError) -> [EngineAddress] {
        guard !request.instances.isEmpty else {
            throw EngineError(.invalidArgument, "the update names no engine")
        }
        try request.checkVersion()
        if request.nativeSender != nil,
            let other = request.instances.first(where: { $0.kind != .vllm })
        {
            throw EngineError(
                .invalidArgument,
                "\(other.updateURL) is no vLLM: only vLLM has the transfer vllm-native")
        }
        var addresses: [EngineAddress] = []
        for instance in request.instances {
            do throws(WorkerError) {
                addresses.append(
                    try EngineAddress(
                        instance.updateURL, unixSocketPath: instance.unixSocketPath,
                        kind: instance.kind))
                if let mode = request.pause { try EngineClient.check(mode, for: instance.kind) }
            } catch {
                throw EngineError(error)
            }
            try instance.checkCounts()
        }
        guard Set(addresses.map(\.description)).count == addresses.count else {
            throw EngineError(.invalidArgument, "the update names an engine twice")
        }
        return addresses
    }

    static func check(timeoutSeconds seconds: Double) throws(EngineError) {
        guard seconds > 0, seconds <= UpdateRequest.timeoutSecondsMax else {
            throw EngineError(
                .invalidArgument,
                "the timeout is \(seconds) s; it has to be above 0 and at most "
                    + "\(UpdateRequest.timeoutSecondsMax) s")
        }
    }

    /// The checkpoint, when it and the engines are free for an update.
    func registered(_ name: CheckpointName, for addresses: [EngineAddress])
        throws(EngineError) -> RegisteredCheckpoint
    {
        let entry = try entry(name)
        guard case .ready(let registered) = entry.state else {
            throw EngineError(.busy, "\(name) is still being registered; wait for its end")
        }
        if let update = entry.runningUpdate {
            throw EngineError(.busy, "\(name) is being delivered by \(update); wait for its end")
        }
        for address in addresses {
            let other = running.first { $0.value.engines.contains(address.description) }
            if let other {
                throw EngineError(
                    .busy, "the engine at \(address) is being updated by \(other.key)")
            }
        }
        return registered
    }

    private func makeSignal() throws(EngineError) -> LinkSignal {
        do throws(WorkerError) { return try LinkSignal() } catch { throw EngineError(error) }
    }

    private static func status(
        id: String, _ name: CheckpointName, _ registered: RegisteredCheckpoint
    )
        -> UpdateStatus
    {
        UpdateStatus(
            id: id, checkpoint: name.description, state: .running, stage: .handshake,
            bytes: registered.catalog.byteCount, tensors: registered.catalog.tensors.count,
            buckets: registered.buckets.count,
            loadedBytes: 0, seconds: 0, stages: [], workers: [], error: nil)
    }
}

// MARK: - The task of one update

extension CheckpointEngine {
    private func run(_ job: UpdateJob) async {
        do throws(EngineError) {
            try await job.run()
            ended(job, failure: nil)
        } catch {
            ended(job, failure: error)
        }
    }

    private func ended(_ job: UpdateJob, failure: EngineError?) {
        let engines =
            job.clientCalls == nil
            ? job.engines.map(\.address.description).joined(separator: ", ")
            : "the engines that the client has called"
        var failure = failure
        if let error = failure, job.record.touchesWeights {
            failure = EngineError(
                error.code,
                "\(error.message). \(engines) may hold a mixture of old and "
                    + "new weights until an update succeeds", cause: error.cause)
        }
        job.clientCalls?.close()
        running[job.id] = nil
        entries[job.checkpoint]?.runningUpdate = nil
        if failure == nil { noteUpdate(of: job.checkpoint) }
        if job.registered.passing != nil {
            Task { await self.forgetPassed(job.checkpoint, job.registered) }
        }
        job.record.finish(failure)
        count(job.record.status, failure)
        log(job.record.status)
    }

    private func count(_ status: UpdateStatus, _ failure: EngineError?) {
        for stage in status.stages {
            counters.stageSeconds[stage.stage, default: 0] += stage.seconds
        }
        for worker in status.workers { counters.deliveredBytes.count(worker.loadedBytes) }
        guard let failure else {
            counters.updatesSucceeded += 1
            counters.updateSeconds += status.seconds
            counters.lastUpdateSeconds = status.seconds
            return
        }
        counters.updatesFailed[failure.code.rawValue, default: 0] += 1
    }

    private func log(_ status: UpdateStatus) {
        if let error = status.error {
            logger.error(
                "update failed",
                metadata: [
                    "update": "\(status.id)", "checkpoint": "\(status.checkpoint)",
                    "code": "\(error.code)", "error": "\(error.message)",
                    "seconds": "\(status.seconds)",
                ])
            return
        }
        logger.info(
            "update committed",
            metadata: [
                "update": "\(status.id)", "checkpoint": "\(status.checkpoint)",
                "workers": "\(status.workers.count)", "bytes": "\(status.bytes)",
                "seconds": "\(status.seconds)",
            ])
    }
}
