public import CheckpointDevice
import Glibc

/// The group in which one GPU of this host sends to the workers of engines: rank 0 of it.
public final class PackedGroup: Sendable {
    let gpu: GPU
    let communicator: NcclCommunicator
    /// The members, the sender included.
    public var count: Int { communicator.count }

    /// Bytes of the memory that a join needs on the sender's GPU.
    private static let pollMicroseconds: CUnsignedInt = 200
    private static let scratchByteCount = 1 << 20

    /// Joins the group `id` of `count` members on `gpu`; returns when all have joined and have done what
    /// vLLM's workers begin with, a sum of one element.
    public init(
        _ gpu: GPU, table: NcclTable, id: [UInt8], count: Int, deadline: ContinuousClock.Instant,
        isCancelled: () -> Bool
    ) throws(DeviceError) {
        self.gpu = gpu
        communicator = try NcclCommunicator(
            table: table, gpu: gpu, id: id, rank: 0, count: count, deadline: deadline,
            isCancelled: isCancelled)
        let scratch = try DeviceMemory(gpu.context, byteCount: Self.scratchByteCount)
        do throws(DeviceError) {
            try gpu.gatherStream.bindThread()
            try gpu.gatherStream.fill(scratch.address, with: 0, byteCount: 4)
            try communicator.sumOne(
                at: scratch.address, on: gpu.gatherStream, deadline: deadline,
                isCancelled: isCancelled)
            let done = try CudaEvent(gpu.context)
            try gpu.gatherStream.record(done)
            while try !done.isDone() {
                if isCancelled() { throw DeviceError(.cancelled, "the update was ended") }
                guard ContinuousClock.now < deadline else {
                    throw DeviceError(
                        .deviceFailed,
                        "cannot join \(count) GPUs: one has joined, and then has not done its part "
                            + "of the first sum in time")
                }
                usleep(Self.pollMicroseconds)
            }
        } catch {
            // Ends what waits on the GPU, whose memory goes with this.
            communicator.abort()
            try? gpu.gatherStream.synchronize()
            throw error
        }
    }

    /// Whether nobody has left.
    public var isUsable: Bool { communicator.isUsable }

    /// Leaves the group, from any thread; what waits for others of it ends.
    public func leave() { communicator.abort() }
}
