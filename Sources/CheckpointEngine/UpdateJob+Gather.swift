import CheckpointDevice
import CheckpointModel
import CheckpointNative
import CheckpointPlan
import CheckpointTransport
import CheckpointWorker

/// A gather delivery while it runs.
struct RunningGather: Sendable {
    let delivery: GatherDelivery
    let runs: GatherRuns
    let counters: ReferenceCounterFile
}

/// Updates of engines on GPUs.
extension UpdateJob {
    /// How long workers may take to let go of memory that is to be given back.
    private static let releaseGrace = Duration.seconds(5)
    /// How long whoever knows more than a first failure says may take to tell it: another host, a worker.
    static let causeGrace = Duration.milliseconds(200)
    private static let lostGrace = Duration.milliseconds(1500)
    private static let releaseInterval = Duration.milliseconds(5)

    func gather(on set: GPUSet) async throws {
        let ranks = try await ranks(in: set)
        let all = ranks.flatMap(\.self)
        try await set.withTaken(all, releasesMemory: gpuConfiguration.releasesMemory) {
            // After a failure memory is as it was before the first update; the next one takes it anew.
            var releases = true
            defer { if releases { exchanges.removeAll() } }
            try await gather(ranks, set)
            releases = gpuConfiguration.releasesMemory
        }
    }

    private func gather(_ ranks: [[Int]], _ set: GPUSet) async throws {
        let gpus = ranks.flatMap(\.self).map { set.gpus[$0] }
        let endpoints = endpoints(ranks, set)
        guard let hosts else {
            return try await deliver(
                try await running(try await prepareAlone(gpus)), endpoints, nil)
        }
        try await gather(together: hosts, gpus, endpoints)
    }

    /// What the copies of this host alone need.
    private func prepareAlone(_ gpus: [GPU]) async throws(DeviceError) -> GatherDelivery {
        try await BlockingThread.run("ckpt-prepare") { () throws(DeviceError) in
            try GatherDelivery(
                registered, gpus: gpus, plan: try planAlone(try GatherDelivery.tightest(gpus)),
                exchange: try exchange(gpus))
        }
    }

    /// With smaller buckets where those that the GPUs have room for are too large for the ring of the host.
    private func planAlone(_ tightest: (name: String, byteCount: Int)) throws(DeviceError)
        -> PlannedGather
    {
        var slotByteCount = slotByteCountMax
        while true {
            let budget = try GatherDelivery.budget(
                registered.catalog.tensors, tightest: tightest, slotByteCountMax: slotByteCount)
            let planned = registered.plans.gather(registered.catalog, budget)
            let buckets = planned.plan.buckets.map { $0.first..<($0.first + $0.count) }
            if registered.passing?.hasRoom(for: buckets) ?? true { return planned }
            slotByteCount /= 2
            guard slotByteCount >= RingBudget.alignment else {
                throw DeviceError(
                    .insufficientMemory,
                    "the ring of \(registered.pooledByteCount) bytes that the checkpoint passes "
                        + "through has no room for one bucket of the GPUs: give it more "
                        + "(--ring-memory), or memory for the whole checkpoint")
            }
        }
    }

    func running(_ delivery: GatherDelivery) async throws -> RunningGather {
        let runs = try await BlockingThread.run("ckpt-prepare") { () throws(DeviceError) in
            try GatherRuns(
                delivery.job, arrivedCount: isStreaming ? 0 : .max, signal: signal,
                delivered: delivered(delivery.plan.schedule.buckets))
        }
        record.describe(delivery)
        return RunningGather(delivery: delivery, runs: runs, counters: try ReferenceCounterFile())
    }

    /// How the GPUs of this host exchange what each has copied.
    private func exchange(_ gpus: [GPU]) throws(DeviceError) -> any GatherExchange {
        switch gpuConfiguration.exchange {
        case .peer: try exchanges.peerCopies(gpus)
        case .nccl: try exchanges.nccl(gpus, deadline: deadline)
        }
    }

    /// Runs copies and link side by side: the failure of one ends the other.
    func deliver(
        _ gather: RunningGather, _ endpoints: [[WorkerEndpoint]], _ update: HostUpdate?
    ) async throws {
        let runs = gather.runs
        runs.start()
        var failure: WorkerError?
        do throws(WorkerError) {
            try await deliver(endpoints: endpoints, through: gather, with: update)
        } catch {
            failure = error
            runs.cancel()
        }
        // The link ends with the copies' failure when that came first, wrapped for the workers.
        if let deviceFailure = await runs.outcome() {
            // Whoever only lost another waits longer, so that two hosts do not wait for each other.
            let grace = deviceFailure.code == .peerLost ? Self.lostGrace : Self.causeGrace
            if let cause = await update?.cause(within: grace) { throw cause }
            throw deviceFailure
        }
        if let failure {
            await awaitRelease(gather.counters)
            throw failure
        }
        if gpuConfiguration.releasesMemory { await awaitRelease(gather.counters) }
        record.keep(runs.spans(), gather.delivery.gpus)
    }

    /// Waits until workers of the known protocol have let go of the rings; one that died never does.
    private func awaitRelease(_ counters: ReferenceCounterFile) async {
        let end = ContinuousClock.now + Self.releaseGrace
        while counters.outstanding > 0, record.hasKnownWorkers, ContinuousClock.now < end {
            await Rest.take(Self.releaseInterval)
        }
    }
}

// MARK: - Who is where

extension UpdateJob {
    /// The GPUs of each engine's workers: those that the request names, else the next ones.
    private func ranks(in set: GPUSet) async throws -> [[Int]] {
        if let clientCalls { return [try Self.ranks(of: clientCalls.workers, in: set)] }
        var ranks: [[Int]] = []
        var next = 0
        for engine in engines {
            let count = try await workerCount(of: engine)
            let own = engine.namedRanks ?? Array(next..<(next + count))
            next = max(next, (own.max() ?? -1) + 1)
            if let wrong = own.first(where: { !set.gpus.indices.contains($0) }) {
                throw EngineError(
                    .invalidArgument,
                    "the workers of \(engine.address) would be on the GPUs \(own), but the daemon "
                        + "sees \(set.gpus.count) and no GPU \(wrong); check "
                        + "CUDA_VISIBLE_DEVICES and the number of workers")
            }
            ranks.append(own)
        }
        let all = ranks.flatMap(\.self)
        guard Set(all).count == all.count else {
            throw EngineError(.invalidArgument, "two workers of the update share a GPU: \(ranks)")
        }
        return ranks
    }

    private static func ranks(of workers: [DeviceID], in set: GPUSet) throws(EngineError) -> [Int] {
        guard Set(workers).count == workers.count else {
            throw EngineError(
                .invalidArgument,
                "two workers of the update share a GPU: "
                    + workers.map(\.description).joined(separator: ", "))
        }
        return try workers.map { worker throws(EngineError) in
            guard let index = set.gpus.firstIndex(where: { $0.id == worker }) else {
                let known = set.gpus.map(\.id.description).joined(separator: ", ")
                throw EngineError(
                    .invalidArgument,
                    "the daemon sees no \(worker); it sees \(known). Check its "
                        + "CUDA_VISIBLE_DEVICES, or --device")
            }
            return index
        }
    }

    private func endpoints(_ ranks: [[Int]], _ set: GPUSet) -> [[WorkerEndpoint]] {
        if let clientCalls { return [clientEndpoints(clientCalls)] }
        return zip(engines, ranks).map { engine, ranks in
            ranks.map { rank in endpoint(set.gpus[rank].id, of: engine, "gpu-\(rank)") }
        }
    }
}
