import CheckpointDevice
public import CheckpointModel
import CheckpointNative
public import CheckpointPull
import Logging

/// Checkpoints that are read from other hosts.
extension CheckpointEngine {
    /// Reads the checkpoint that `sources` hold as `remoteName`, under a free name of this host; without sources
    /// those of the metas that were loaded, whose daemons are sent `token`. Returns when
    /// its tensors are known and its bytes begin to arrive. It can be delivered at once: updates take what has
    /// arrived. When the pull fails, updates from it fail, and the name is free again.
    ///
    /// What is not kept passes through a ring: only one update can be made from it, which it arrives with, and
    /// then the name is free again.
    @discardableResult
    public func pull(
        _ name: CheckpointName, remoteName: CheckpointName? = nil, sources: [SourceAddress] = [],
        token: String? = nil, stallTimeout: Duration = PullRequest.stallTimeoutDefault,
        keep: PullKeep = .always
    ) async throws(EngineError) -> CheckpointSummary {
        try checkRunning()
        guard entries[name] == nil else {
            throw EngineError(
                .alreadyExists,
                "a checkpoint is registered as \(name) already and stays so; unregister it first, or "
                    + "choose another name")
        }
        let named = sources.isEmpty
        let sources =
            named
            ? gathered.sourceURLs.compactMap { try? SourceAddress(url: $0, token: token) } : sources
        guard sources.count <= PullRequest.sourceCountMax else {
            throw EngineError(
                .invalidArgument,
                "a pull has at most \(PullRequest.sourceCountMax) sources, not \(sources.count)")
        }
        let progress = RegistrationProgress()
        entries[name] = RegistryEntry(
            name: name, consumes: false, state: .registering(progress))
        do throws(EngineError) {
            let remote = remoteName ?? (named ? gathered.sourceName : nil) ?? name
            // Of another checkpoint there the metas say nothing.
            let isTheirs = named && gathered.sourceName == remote
            let request = PullRequest(
                checkpoint: remote, sources: sources,
                reader: configuration.pull.advertisedURL?.description,
                content: isTheirs ? gathered.content : nil, stallTimeout: stallTimeout)
            return try await begin(name, request, keep, progress)
        } catch {
            entries[name] = nil
            counters.pullFailures += 1
            throw error
        }
    }

    /// Waits until everything has arrived; throws when it will not.
    @discardableResult
    public func finishedPull(_ name: CheckpointName) async throws(EngineError) -> CheckpointSummary
    {
        guard case .ready(let registered) = try entry(name).state else {
            throw EngineError(.busy, "\(name) is still being registered; wait for its end")
        }
        do throws(PullError) {
            try await registered.feed?.waitUntilComplete()
        } catch {
            throw EngineError(error)
        }
        return try entry(name).summary
    }

    private func begin(
        _ name: CheckpointName, _ request: PullRequest, _ keep: PullKeep,
        _ progress: RegistrationProgress
    ) async throws(EngineError) -> CheckpointSummary {
        let start = ContinuousClock.now
        // While the sources are asked: it takes as long.
        await readingAgents.prepare()
        let offer = try await offer(request, progress)
        let (registered, target) = try await memory(for: offer, keep)
        let run: PullRun
        do throws(PullError) {
            run = try PullRun(
                offer, into: target, agents: readingAgents, shards: mappedShards, logger: logger)
            try await run.prepare()
        } catch {
            pool.release(registered.segments, retains: error.code != .memoryInUse)
            throw EngineError(error)
        }
        guard entries[name] != nil, !isStopping else {
            pool.release(registered.segments, retains: await run.abandon())
            throw EngineError(.cancelled, "the daemon is stopping")
        }
        entries[name]?.state = .ready(registered)
        entries[name]?.pull = Task { await self.carryOut(run, name, registered, start) }
        logger.info(
            "pull begun",
            metadata: [
                "checkpoint": "\(name)", "sources": "\(request.sources.count)",
                "bytes": "\(registered.catalog.byteCount)",
                "memory": "\(registered.pooledByteCount)",
            ])
        return try entry(name).summary
    }

    /// What daemons have, or without any what the loaded metas say of processes' memory.
    private func offer(_ request: PullRequest, _ progress: RegistrationProgress)
        async throws(EngineError) -> PullOffer
    {
        guard request.sources.isEmpty else {
            do throws(PullError) {
                return try await PullOffer.ask(request, client: sourceClient) {
                    progress.isCancelled
                }
            } catch {
                throw EngineError(error)
            }
        }
        let (gathered, client) = (gathered, sourceClient)
        let offer = try await BlockingThread.run("ckpt-metas") { () throws(EngineError) in
            let (catalog, sources) = try gathered.memory()
            guard sources.isEmpty || !catalog.tensors.isEmpty else {
                throw EngineError(
                    .invalidCheckpoint, "the metas name sources, and no tensor that they have")
            }
            return sources.isEmpty
                ? nil : PullOffer(catalog, sources: sources, request: request, client: client)
        }
        guard let offer else {
            throw EngineError(
                .invalidArgument,
                "no source was named, and the metas name none: load metas that were gathered where "
                    + "others can read ('--listen', '--transfer-host'), or name daemons")
        }
        return offer
    }

    private func carryOut(
        _ run: PullRun, _ name: CheckpointName, _ registered: RegisteredCheckpoint,
        _ start: ContinuousClock.Instant
    ) async {
        let seconds: Double
        do throws(PullError) {
            try await run.run()
            seconds = start.duration(to: .now).inSeconds
        } catch {
            return await failed(name, registered, error)
        }
        counters.pulls += 1
        counters.pulledBytes.count(registered.catalog.byteCount)
        counters.pullSeconds += seconds
        entries[name]?.pull = nil
        let shares = await run.bytesBySource
        logger.info(
            "pull complete",
            metadata: [
                "checkpoint": "\(name)", "bytes": "\(registered.catalog.byteCount)",
                "seconds": "\(seconds)",
                "sources": "\(shares.sorted { $0.key < $1.key }.map { "\($0.key): \($0.value)" })",
            ])
    }

    /// What has arrived is no checkpoint. An update that runs from it ends by itself.
    private func failed(
        _ name: CheckpointName, _ registered: RegisteredCheckpoint, _ error: PullError
    ) async {
        if error.code != .cancelled { counters.pullFailures += 1 }
        logger.error(
            "pull failed", metadata: ["checkpoint": "\(name)", "error": "\(error.message)"])
        while isHere(name, registered), entries[name]?.runningUpdate != nil {
            await Rest.take(.milliseconds(10))
        }
        guard isHere(name, registered) else { return }
        entries[name] = nil
        pool.release(registered.segments, retains: error.code != .memoryInUse)
    }

    /// What has passed through is not here any more.
    func forgetPassed(_ name: CheckpointName, _ registered: RegisteredCheckpoint) async {
        guard isHere(name, registered) else { return }
        // One that has read everything ends by itself, and keeps its agents.
        if registered.feed?.isComplete != true { entries[name]?.pull?.cancel() }
        await entries[name]?.pull?.value
        // A pull that did not end well has given everything back itself.
        guard isHere(name, registered), entries[name]?.pull == nil else { return }
        entries[name] = nil
        pool.release(registered.segments, retains: true)
    }

    /// Whether a name still stands for these bytes.
    private func isHere(_ name: CheckpointName, _ registered: RegisteredCheckpoint) -> Bool {
        guard case .ready(let current)? = entries[name]?.state else { return false }
        return current.incarnation == registered.incarnation
    }
}
