import CheckpointDevice
import CheckpointFiles
public import CheckpointModel
import CheckpointNative
import CheckpointTransport
import Logging

extension CheckpointEngine {
    /// Registers the checkpoint that `paths` name (safetensors files, directories or index files)
    /// under a free name. `progress` gets bytes done and bytes in all, at most ten times a second.
    /// With `consumes`, files in shared memory are deleted when the checkpoint is unregistered,
    /// provided that an update from it has succeeded. Cancelling the task ends the registration.
    @discardableResult
    public func register(
        _ name: CheckpointName, paths: [String], consumes: Bool = false,
        progress onProgress: (@Sendable (_ done: Int, _ total: Int) -> Void)? = nil
    ) async throws(EngineError) -> CheckpointSummary {
        try checkRunning()
        guard entries[name] == nil else {
            throw EngineError(
                .alreadyExists,
                "a checkpoint is registered as \(name) already and stays so; unregister it first, or "
                    + "choose another name")
        }
        let progress = RegistrationProgress()
        entries[name] = RegistryEntry(
            name: name, consumes: consumes, state: .registering(progress))
        do throws(EngineError) {
            let registration = Registration(
                paths: paths, roots: configuration.fileRoots, consumes: consumes,
                isPart: hosts != nil, pool: pool, pinned: gpus?.pinned,
                readThreadCount: configuration.readThreadCount,
                bucketByteCountMax: configuration.bucketByteCountMax, progress: progress,
                onProgress: onProgress)
            let roomCount = pool.roomCount
            do throws(EngineError) {
                return finished(name, try await run(registration))
            } catch {
                // What was removed to make room may be mapped still by those who read from here.
                guard error.code == .insufficientMemory, pool.roomCount > roomCount,
                    await drops.wait()
                else { throw error }
                return finished(name, try await run(registration))
            }
        } catch {
            entries[name] = nil
            counters.registrationFailures += 1
            throw error
        }
    }

    /// Runs the blocking part on a thread of its own; cancelling the task ends it.
    private func run(_ registration: Registration) async throws(EngineError)
        -> RegisteredCheckpoint
    {
        let result: Result<RegisteredCheckpoint, EngineError> = await withTaskCancellationHandler {
            do throws(EngineError) {
                return .success(
                    try await BlockingThread.run("ckpt-register") { () throws(EngineError) in
                        try registration.run()
                    })
            } catch {
                return .failure(error)
            }
        } onCancel: {
            registration.progress.cancel()
        }
        return try result.get()
    }

    private func finished(_ name: CheckpointName, _ registered: RegisteredCheckpoint)
        -> CheckpointSummary
    {
        entries[name]?.state = .ready(registered)
        if configuration.pull.computesChecksumsAhead { computeChecksums(registered) }
        counters.registrations += 1
        counters.registeredBytes.count(registered.catalog.byteCount)
        counters.registerSeconds += registered.seconds
        logger.info(
            "checkpoint registered",
            metadata: [
                "checkpoint": "\(name)", "tensors": "\(registered.catalog.tensors.count)",
                "left_out_tensors": "\(registered.leftOutCount)",
                "bytes": "\(registered.catalog.byteCount)",
                "in_place_bytes": "\(registered.inPlaceByteCount)",
                "seconds": "\(registered.seconds)",
            ])
        // The entry is there: only this call replaces or removes a registering one.
        return RegistryEntry(
            name: name, consumes: entries[name]?.consumes ?? false, state: .ready(registered)
        ).summary
    }

    /// Forgets the checkpoint. Its memory is kept for the next version of equal layout, unless
    /// `releasesMemory` gives it, and all else that is kept, back to the system.
    /// One that is still being read from other hosts is read no further.
    public func unregister(_ name: CheckpointName, releasesMemory: Bool = false)
        async throws(EngineError)
    {
        var (entry, registered) = try removable(name)
        if let pull = entry.pull {
            // Memory is given back when nothing is written to it any more; its failure frees the name.
            pull.cancel()
            await pull.value
            guard let rest = entries[name], rest.pull == nil,
                case .ready(let left) = rest.state, left.incarnation == registered.incarnation
            else { return }
            // It had ended well by then, and may have become a part of another one since.
            (entry, registered) = try removable(name)
        }
        removeConsumed(entry)
        entries[name] = nil
        // Before the memory is given back: what is read until then is what was registered.
        await stopSharing(registered)
        defer { logger.info("checkpoint unregistered", metadata: ["checkpoint": "\(name)"]) }
        // What consists of parts has no memory of its own.
        guard entry.parts.isEmpty else { return }
        pool.release(registered.segments, retains: !releasesMemory)
        if releasesMemory {
            gpus?.pinned.drop(paths: registered.locations.map(\.path))
            pool.releaseRetained()
        }
        gpus?.pinned.dropStale()
    }

    /// A checkpoint that nobody uses: what it is a part of is forgotten, and its leases have ended.
    private func removable(_ name: CheckpointName) throws(EngineError) -> (
        RegistryEntry, RegisteredCheckpoint
    ) {
        let entry = try entry(name)
        if let update = entry.runningUpdate {
            throw EngineError(
                .busy, "\(name) is being delivered by \(update); wait for its end, or cancel it")
        }
        guard case .ready(let registered) = entry.state else {
            throw EngineError(.busy, "\(name) is still being registered; wait for its end")
        }
        try forgetCompositions(with: name)
        leases.end(incarnation: registered.incarnation)
        return (entry, registered)
    }

    /// Deletes the source files in shared memory where that was asked for and an update has succeeded.
    func removeConsumed(_ entry: RegistryEntry) {
        guard entry.consumes, entry.hasUpdated, case .ready(let registered) = entry.state else {
            return
        }
        for shard in registered.shards where shard.isSharedMemory {
            do throws(FilesError) {
                try shard.checkUnchanged()
                try shard.remove()
            } catch {
                logger.warning(
                    "a consumed file was not deleted",
                    metadata: ["file": "\(shard.path)", "error": "\(error)"])
            }
        }
    }
}
