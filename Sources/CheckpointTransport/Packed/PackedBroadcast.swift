public import CheckpointDevice
public import CheckpointPlan
import Synchronization

/// One delivery to a ``PackedGroup``: chunks are copied from pinned memory into slots of device memory and
/// broadcast from there, copies ahead of broadcasts.
///
/// The owner calls ``run()`` on a thread, and ``cancel()`` from any.
public final class PackedBroadcast: Sendable {
    /// Chunks that lie on the GPU at once: one is sent while the next is copied.
    public static let slotCount = 2

    private let group: PackedGroup
    private let plan: PackedPlan
    private let sources: [(file: PinnedFile, dataOffset: Int)]
    private let memory: DeviceMemory
    private let isCancelled = Mutex(false)
    private let onSent: @Sendable (Int) -> Void

    /// `sources` has the pinned file of each shard, and where its data section begins. `onSent` is called with
    /// the number of chunks that have left this GPU.
    public init(
        _ group: PackedGroup, plan: PackedPlan,
        sources: [(file: PinnedFile, dataOffset: Int)], onSent: @escaping @Sendable (Int) -> Void
    ) throws(DeviceError) {
        self.group = group
        self.plan = plan
        self.sources = sources
        self.onSent = onSent
        memory = try group.gpu.ring(byteCount: Self.slotCount * Self.slotByteCount(plan))
    }

    /// Bytes of one slot; slots begin at multiples of 512.
    public static func slotByteCount(_ plan: PackedPlan) -> Int {
        max(512, (plan.chunkByteCountMax + 511) / 512 * 512)
    }

    /// Sends everything. Throws the first failure; nothing is under way when it returns.
    public func run() throws(DeviceError) {
        let gpu = group.gpu
        do throws(DeviceError) {
            try gpu.stageStream.bindThread()
            let staged = try (0..<Self.slotCount).map { _ throws(DeviceError) in
                try CudaEvent(gpu.context)
            }
            let sent = try (0..<Self.slotCount).map { _ throws(DeviceError) in
                try CudaEvent(gpu.context)
            }
            for chunk in plan.chunks.indices {
                let slot = chunk % Self.slotCount
                if chunk >= Self.slotCount {
                    try sent[slot].synchronize()
                    onSent(chunk - Self.slotCount + 1)
                }
                if isCancelled.withLock({ $0 }) { break }
                try stage(chunk, slot)
                try gpu.stageStream.record(staged[slot])
                try gpu.gatherStream.wait(for: staged[slot])
                try send(chunk, slot)
                try gpu.gatherStream.record(sent[slot])
            }
            try gpu.gatherStream.synchronize()
        } catch {
            settle()
            throw error
        }
        guard !isCancelled.withLock({ $0 }) else {
            settle()
            throw DeviceError(.cancelled, "the update was ended")
        }
        onSent(plan.chunks.count)
    }

    /// Ends what is under way; the group cannot be used again.
    public func cancel() {
        isCancelled.withLock { $0 = true }
        group.leave()
    }

    /// Queues the copies of a chunk into its slot.
    private func stage(_ chunk: Int, _ slot: Int) throws(DeviceError) {
        let target = memory.address + slot * Self.slotByteCount(plan)
        for piece in plan.pieces(of: chunk) {
            let (file, dataOffset) = sources[piece.shard]
            // SAFETY: the catalog was validated against the file, which `sources` keeps pinned; the
            // slot has room for the chunk, and ``run()`` outlasts the copies.
            try unsafe group.gpu.stageStream.copy(
                from: file, at: dataOffset + piece.sourceOffset, to: target + piece.offset,
                byteCount: piece.byteCount)
        }
    }

    private func send(_ chunk: Int, _ slot: Int) throws(DeviceError) {
        try group.communicator.broadcast(
            [
                (
                    memory.address + slot * Self.slotByteCount(plan), plan.chunks[chunk].byteCount,
                    0
                )
            ], on: group.gpu.gatherStream)
    }

    private func settle() {
        try? group.gpu.stageStream.synchronize()
        try? group.gpu.gatherStream.synchronize()
    }
}
