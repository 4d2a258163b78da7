public import CheckpointDevice
import CheckpointNative
public import CheckpointPlan

/// One delivery through the rings of several GPUs: copies from the host and between the GPUs, queued
/// ahead of what the workers have taken.
///
/// Each GPU has a thread that queues its work, and one more waits for buckets to be complete. A bucket
/// is staged when every worker is done with what was in its place. The owner calls ``run()`` on a
/// thread; it returns when everything is delivered, cancelled or failed, with no copy under way.
public final class GatherRun: Sendable {
    /// What the run is made of.
    public struct Job: Sendable {
        public let gpus: [GPU]
        public let plan: GatherPlan
        /// The pinned file of each shard, and where its data section begins.
        public let sources: [(file: PinnedFile, dataOffset: Int)]
        /// The ring of each GPU, in the order of `gpus`.
        public let rings: [DeviceMemory]
        public let exchange: any GatherExchange
        /// Which host this is among those of the update.
        public let host: Int
        /// How many GPUs of each host fetch and pass on what only one host has.
        public let railCount: Int

        public init(
            gpus: [GPU], plan: GatherPlan, sources: [(file: PinnedFile, dataOffset: Int)],
            rings: [DeviceMemory], exchange: any GatherExchange, host: Int = 0, railCount: Int = 0
        ) {
            self.gpus = gpus
            self.plan = plan
            self.sources = sources
            self.rings = rings
            self.exchange = exchange
            self.host = host
            self.railCount = railCount
        }
    }

    struct State {
        /// Buckets that all workers are done with.
        var doneCount = 0
        /// Buckets whose bytes are in the host's memory.
        var arrivedCount = Int.max
        /// Buckets whose work is queued, by GPU.
        var queuedCounts: [Int]
        var isCancelled = false
        var failure: DeviceError?
        var isStopped: Bool { isCancelled || failure != nil }
    }

    let job: Job
    let marks: [GatherMarks]
    let state: BlockingState<State>
    private let onAvailable: @Sendable (Int) -> Void

    /// `onAvailable` is called with the number of buckets that lie complete in the rings of all GPUs.
    /// `arrivedCount` buckets are in the host's memory; ``arrive(_:)`` tells of more.
    public init(
        _ job: Job, arrivedCount: Int = .max, onAvailable: @escaping @Sendable (Int) -> Void
    ) throws(DeviceError) {
        self.job = job
        self.onAvailable = onAvailable
        marks = try job.gpus.map { gpu throws(DeviceError) in
            try GatherMarks(gpu, bucketCount: job.plan.buckets.count)
        }
        state = BlockingState(
            State(
                arrivedCount: arrivedCount,
                queuedCounts: [Int](repeating: 0, count: job.gpus.count)))
    }

    /// Tells that all workers are done with the first `count` buckets.
    public func release(_ count: Int) {
        state.update { $0.doneCount = max($0.doneCount, count) }
    }

    /// Tells that the bytes of the first `count` buckets are in the host's memory.
    public func arrive(_ count: Int) {
        state.update { $0.arrivedCount = max($0.arrivedCount, count) }
    }

    /// Ends the run early; ``run()`` returns soon.
    public func cancel() {
        state.update { $0.isCancelled = true }
        job.exchange.cancel()
    }

    /// Delivers everything. Throws the first failure.
    public func run() throws(DeviceError) {
        do throws(SystemShortage) {
            try BlockingThread.runTogether("ckpt-gather", count: job.gpus.count + 1) {
                [self] index in
                do throws(DeviceError) {
                    if index < job.gpus.count { try queueAll(index) } else { try followAll() }
                } catch {
                    // What fails because the run was cancelled is no news.
                    state.update { if !$0.isCancelled { $0.failure = $0.failure ?? error } }
                    job.exchange.cancel()
                }
            }
        } catch {
            job.exchange.cancel()
            throw DeviceError(error)
        }
        let failure = state.update { $0.failure }
        settle()
        if let failure { throw failure }
    }

    /// Lets what is queued end, so that nothing touches the rings or the host's memory any more.
    private func settle() {
        guard state.update({ $0.isStopped }) else { return }
        for gpu in job.gpus {
            try? gpu.stageStream.synchronize()
            try? gpu.gatherStream.synchronize()
        }
    }
}

// MARK: - Who does what

extension GatherRun.Job {
    /// The bytes of a bucket that GPU `index` brings to the others of this host.
    func share(_ bucket: Int, _ index: Int) -> Range<Int> {
        guard plan.buckets[bucket].owner != nil else {
            return plan.share(index, of: gpus.count, in: bucket)
        }
        return index < railCount ? plan.share(index, of: railCount, in: bucket) : 0..<0
    }

    /// The bytes that it copies from this host's memory.
    func stagedShare(_ bucket: Int, _ index: Int) -> Range<Int> {
        plan.buckets[bucket].owner ?? host == host ? share(bucket, index) : 0..<0
    }
}

// MARK: - The thread of one GPU

extension GatherRun {
    private func queueAll(_ index: Int) throws(DeviceError) {
        let gpu = job.gpus[index]
        try gpu.stageStream.bindThread()
        try marks[index].begin(gpu.stageStream)
        for bucket in job.plan.buckets.indices {
            let needed = job.plan.buckets[bucket].doneCountNeeded
            let goesOn = state.wait { state -> Bool? in
                if state.isStopped { return false }
                return state.doneCount >= needed && state.arrivedCount > bucket ? true : nil
            }
            guard goesOn else { return }
            try stage(bucket, index)
            try gather(bucket, index)
            state.update { $0.queuedCounts[index] = bucket + 1 }
        }
    }

    /// Queues the copies of this GPU's share from the host.
    private func stage(_ bucket: Int, _ index: Int) throws(DeviceError) {
        let stream = job.gpus[index].stageStream
        let mark = marks[index]
        let ring = job.rings[index].address
        try stream.record(mark.stageStart(bucket))
        for piece in job.plan.pieces(of: bucket, in: job.stagedShare(bucket, index)) {
            let (file, dataOffset) = job.sources[piece.shard]
            // SAFETY: the catalog was validated against the file, which `job` keeps pinned; the ring
            // has room for the bucket, and ``run()`` outlasts the copies.
            try unsafe stream.copy(
                from: file, at: dataOffset + piece.sourceOffset, to: ring + piece.ringOffset,
                byteCount: piece.byteCount)
        }
        try stream.record(mark.staged(bucket))
    }

    /// Queues what brings this GPU's share to the others.
    private func gather(_ bucket: Int, _ index: Int) throws(DeviceError) {
        let stream = job.gpus[index].gatherStream
        let mark = marks[index]
        try stream.wait(for: mark.staged(bucket))
        try stream.record(mark.gatherStart(bucket))
        try job.exchange.queue(
            GatherExchangeStep(
                index: index, owner: job.plan.buckets[bucket].owner,
                shares: job.gpus.indices.map { job.share(bucket, $0) },
                rings: job.rings.map(\.address), stream: stream))
        try stream.record(mark.gathered(bucket))
    }
}

// MARK: - The thread that follows

extension GatherRun {
    private func followAll() throws(DeviceError) {
        for bucket in job.plan.buckets.indices {
            let goesOn = state.wait { state -> Bool? in
                if state.isStopped { return false }
                return state.queuedCounts.allSatisfy { $0 > bucket } ? true : nil
            }
            guard goesOn else { return }
            for (gpu, mark) in zip(job.gpus, marks) {
                try gpu.gatherStream.bindThread()
                try mark.gathered(bucket).synchronize()
            }
            onAvailable(bucket + 1)
        }
    }
}
