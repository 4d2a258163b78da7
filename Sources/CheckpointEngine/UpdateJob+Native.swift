import CheckpointDevice
import CheckpointModel
import CheckpointNative
import CheckpointPlan
import CheckpointTransport
import CheckpointWorker

/// Updates by vLLM's own weight transfer: one GPU of this host, on which no engine runs, broadcasts to all
/// workers over NCCL.
extension UpdateJob {
    func sendNatively(from index: Int, on set: GPUSet) async throws {
        guard hosts == nil else {
            throw EngineError(
                .invalidArgument,
                "vLLM's own transfer has one sender; several hosts cannot update with it together")
        }
        guard set.gpus.indices.contains(index) else {
            throw EngineError(
                .invalidArgument,
                "there is no GPU \(index) to send from: the daemon sees \(set.gpus.count), numbered "
                    + "from 0")
        }
        try await set.withTaken([index], releasesMemory: gpuConfiguration.releasesMemory) {
            let key = NativeGroups.Key(
                engines: engines.map(\.address.description), workerCounts: try await workerCounts(),
                gpu: index)
            var keeps = false
            defer { if !keeps { nativeGroups.remove(key) } }
            try await send(set.gpus[index], key)
            keeps = !gpuConfiguration.releasesMemory
        }
    }

    func nativeGPUs() throws(EngineError) -> GPUSet {
        guard let gpus else {
            throw EngineError(
                .invalidArgument,
                "vLLM's own transfer sends from a GPU: this daemon updates engines on the CPU")
        }
        return gpus
    }

    private func workerCounts() async throws(WorkerError) -> [Int] {
        var counts: [Int] = []
        for engine in engines { counts.append(try await workerCount(of: engine)) }
        return counts
    }

    private func send(_ gpu: GPU, _ key: NativeGroups.Key) async throws {
        let (member, plan) = try await prepare(gpu, key)
        record.enter(.catalog)
        record.touchWeights()
        try await all { engine async throws(WorkerError) in
            try await client.startNative(engine.address, timeout: remaining)
        }
        record.enter(.reload)
        try await deliver(plan, member.group)
        try checkFiles()
        record.enter(.commit)
        try await all { engine async throws(WorkerError) in
            try await client.finishNative(engine.address, timeout: remaining)
        }
    }

    /// The group, joined if it is not there, and the plan that fits what was agreed on there.
    private func prepare(_ gpu: GPU, _ key: NativeGroups.Key) async throws
        -> (NativeGroups.Member, PackedPlan)
    {
        let chunk = try chunkByteCount(gpu)
        if let known = nativeGroups[key] {
            let planned = try plan(known.chunkByteCount)
            if PackedBroadcast.slotByteCount(planned) * PackedBroadcast.slotCount
                <= (try gpu.availableByteCount()) - RingBudget.headroomByteCount
            {
                return (known, planned)
            }
        }
        nativeGroups.remove(key)
        let planned = try plan(chunk)
        let group = try await join(gpu, key, chunk)
        let member = NativeGroups.Member(group: group, chunkByteCount: chunk)
        nativeGroups.keep(member, key)
        return (member, planned)
    }

    private func plan(_ chunkByteCount: Int) throws(EngineError) -> PackedPlan {
        do throws(PackedPlan.UnsupportedTensor) {
            return try PackedPlan(catalog: registered.catalog, chunkByteCount: chunkByteCount)
        } catch {
            throw EngineError(
                .invalidArgument,
                "vLLM's own transfer cannot take \(error.name) of type \(error.dtype.rawValue), whose "
                    + "elements are no whole bytes; update through the worker extension")
        }
    }

    /// The size that chunks end at: a chunk may be larger by one tensor, and two lie on the GPU.
    private func chunkByteCount(_ gpu: GPU) throws -> Int {
        let largest = registered.catalog.tensors.map(\.range.byteCount).max() ?? 0
        let free = try gpu.availableByteCount()
        let room = (free - RingBudget.headroomByteCount) / PackedBroadcast.slotCount - largest
        guard room >= 0 else {
            throw DeviceError(
                .insufficientMemory,
                "\(gpu.device) has \(free) bytes free; sending needs two of the largest tensor, "
                    + "\(PackedBroadcast.slotCount * largest) bytes, beside "
                    + "\(RingBudget.headroomByteCount) that stay free")
        }
        return max(1, min(slotByteCountMax, room / 2))
    }
}

// MARK: - Side by side

extension UpdateJob {
    /// Joins a new group: the engines by their calls, the sender on a thread.
    private func join(_ gpu: GPU, _ key: NativeGroups.Key, _ chunkByteCount: Int) async throws
        -> PackedGroup
    {
        for engine in engines { await client.leaveNative(engine.address) }
        let table = try exchanges.table()
        let id = try table.makeID()
        let worldSize = key.workerCounts.reduce(1, +)
        let (signal, deadline) = (signal, deadline)
        async let joined = Self.onThread { () throws(DeviceError) in
            try PackedGroup(
                gpu, table: table, id: id, count: worldSize, deadline: deadline,
                isCancelled: { signal.failure != nil })
        }
        var offset = 1
        var offsets: [Int] = []
        for count in key.workerCounts {
            offsets.append(offset)
            offset += count
        }
        let failure = await firstFailure { [offsets] index, engine throws(WorkerError) in
            try await client.joinNative(
                engine.address, id: id, rankOffset: offsets[index], worldSize: worldSize,
                chunkByteCount: chunkByteCount, chunkCount: PackedBroadcast.slotCount,
                timeout: remaining)
        } onFailure: {
            signal.fail($0)
        }
        // The engine's words tell more than that the sender stood alone.
        let group = await joined
        if let failure { throw failure }
        return try group.get()
    }

    /// Broadcasts on a thread while the engines receive.
    private func deliver(_ plan: PackedPlan, _ group: PackedGroup) async throws {
        let record = record
        let sizes = plan.chunks.map(\.byteCount)
        let broadcast = try PackedBroadcast(
            group, plan: plan,
            sources: zip(registered.pins, registered.locations).map { ($0, $1.dataOffset) }
        ) { count in record.sent(sizes.prefix(count).reduce(0, +)) }
        let signal = signal
        async let sent = Self.onThread { () throws(DeviceError) in
            do throws(DeviceError) { try broadcast.run() } catch {
                signal.fail(WorkerError(.callFailed, error.message))
                throw error
            }
        }
        let tensors = plan.order.map { registered.catalog.tensors[$0] }
        let failure = await firstFailure { _, engine throws(WorkerError) in
            try await client.receiveNative(engine.address, tensors: tensors, timeout: remaining)
        } onFailure: { _ in
            broadcast.cancel()
        }
        let result = await sent
        if let failure { throw failure }
        try result.get()
    }

    private static func onThread<Value: Sendable>(
        _ body: @escaping @Sendable () throws(DeviceError) -> Value
    ) async -> Result<Value, DeviceError> {
        do throws(DeviceError) {
            return .success(try await BlockingThread.run("ckpt-native", body))
        } catch {
            return .failure(error)
        }
    }

    /// Does `step` for all engines at once; throws the first failure.
    private func all(_ step: @escaping @Sendable (UpdateEngine) async throws(WorkerError) -> Void)
        async throws(WorkerError)
    {
        let failure = await firstFailure { _, engine throws(WorkerError) in
            try await step(engine)
        }
        if let failure { throw failure }
    }

    /// Does `step` for all engines at once; see ``SideBySide``.
    private func firstFailure(
        _ step: @escaping @Sendable (Int, UpdateEngine) async throws(WorkerError) -> Void,
        onFailure: (WorkerError) -> Void = { _ in }
    ) async -> WorkerError? {
        let engines = engines
        return await SideBySide.firstFailure(
            engines.indices,
            { index async throws(WorkerError) in try await step(index, engines[index]) },
            onFailure: onFailure)
    }
}
