import CNative
public import CheckpointDevice
import Glibc
import Synchronization

/// One GPU's membership in a group of GPUs.
///
/// Calls are made by one thread; ``abort()`` comes from any, and ends what is under way on the GPU.
public final class NcclCommunicator: Sendable {
    private static let pollMicroseconds: CUnsignedInt = 50

    public let rank: Int
    public let count: Int
    private let table: NcclTable
    private let device: CudaDevice
    /// Zero when it was aborted.
    private let handle: Mutex<UInt>

    /// Joins the group `id` as `rank` of `count`; returns when all have joined. Throws when `isCancelled`
    /// says so, or the deadline passes.
    public init(
        table: NcclTable, gpu: GPU, id: [UInt8], rank: Int, count: Int,
        deadline: ContinuousClock.Instant, isCancelled: () -> Bool
    ) throws(DeviceError) {
        try gpu.stageStream.bindThread()
        var name = ce_nccl_unique_id()
        // SAFETY: the structure is 128 plain bytes, and no more are copied.
        unsafe withUnsafeMutableBytes(of: &name) { bytes in
            unsafe bytes.copyBytes(from: id.prefix(bytes.count))
        }
        var config = unsafe ce_nccl_config_nonblocking()
        var handle: UInt = 0
        // SAFETY: the results are written to variables that outlive the call.
        let code = unsafe table.raw.ncclCommInitRankConfig(
            &handle, CInt(count), name, CInt(rank), &config)
        self.table = table
        self.rank = rank
        self.count = count
        device = gpu.device
        self.handle = Mutex(handle)
        do throws(DeviceError) {
            if code != CInt(CE_NCCL_IN_PROGRESS) {
                try table.check(code, handle, "ncclCommInitRankConfig", "join \(count) GPUs")
            }
            try settle("join \(count) GPUs", deadline: deadline, isCancelled: isCancelled)
        } catch {
            abort()
            throw error
        }
    }

    deinit { abort() }

    /// Queues broadcasts of ranges of memory, each in place, as one operation.
    func broadcast(
        _ parts: [(address: DeviceAddress, byteCount: Int, root: Int)], on stream: CudaStream
    ) throws(DeviceError) {
        try withHandle { handle throws(DeviceError) in
            var code = table.raw.ncclGroupStart()
            for part in parts where part.byteCount > 0 && code == CInt(CE_NCCL_SUCCESS) {
                let result = table.raw.ncclBroadcast(
                    part.address.raw, part.address.raw, part.byteCount, CInt(CE_NCCL_UINT8),
                    CInt(part.root), handle, stream.handle)
                if result != CInt(CE_NCCL_IN_PROGRESS) { code = result }
            }
            let end = table.raw.ncclGroupEnd()
            if end != CInt(CE_NCCL_IN_PROGRESS), code == CInt(CE_NCCL_SUCCESS) { code = end }
            try table.check(code, handle, "ncclBroadcast", "send from \(device) to its group")
        }
        // The work is in the stream only when the call has ended.
        try settle("send from \(device) to its group", deadline: nil, isCancelled: { false })
    }

    /// Queues the sum of one 32-bit float of every member, in place: what members that follow vLLM's
    /// protocol for joining do first. The first sum connects the members; throws when `isCancelled` says so, or
    /// the deadline passes.
    func sumOne(
        at address: DeviceAddress, on stream: CudaStream, deadline: ContinuousClock.Instant,
        isCancelled: () -> Bool
    ) throws(DeviceError) {
        let what = "sum over the group of \(device)"
        try withHandle { handle throws(DeviceError) in
            let code = table.raw.ncclAllReduce(
                address.raw, address.raw, 1, CInt(CE_NCCL_FLOAT32), CInt(CE_NCCL_SUM), handle,
                stream.handle)
            if code != CInt(CE_NCCL_IN_PROGRESS) {
                try table.check(code, handle, "ncclAllReduce", what)
            }
        }
        try settle(what, deadline: deadline, isCancelled: isCancelled)
    }

    /// Whether it was not left.
    var isUsable: Bool { handle.withLock { $0 != 0 } }

    /// Leaves the group; whatever waits for others of it ends.
    public func abort() {
        handle.withLock { handle in
            if handle != 0 { _ = table.raw.ncclCommAbort(handle) }
            handle = 0
        }
    }

    /// Calls NCCL while nobody can leave the group. The calls do not block.
    private func withHandle<Result>(_ body: (UInt) throws(DeviceError) -> Result)
        throws(DeviceError) -> Result
    {
        try handle.withLock { handle throws(DeviceError) in
            guard handle != 0 else {
                throw DeviceError(.cancelled, "the group of \(device) was left")
            }
            return try body(handle)
        }
    }

    /// Waits until the last call has ended; an abort ends the wait.
    private func settle(
        _ what: String, deadline: ContinuousClock.Instant?, isCancelled: () -> Bool
    ) throws(DeviceError) {
        while true {
            let isDone = try withHandle { handle throws(DeviceError) in
                var state: CInt = 0
                // SAFETY: the result is written to a variable that outlives the call.
                let code = unsafe table.raw.ncclCommGetAsyncError(handle, &state)
                try table.check(code, handle, "ncclCommGetAsyncError", what)
                if state == CInt(CE_NCCL_IN_PROGRESS) { return false }
                try table.check(state, handle, "NCCL", what)
                return true
            }
            if isDone { return }
            if isCancelled() { throw DeviceError(.cancelled, "the update was ended") }
            if let deadline, ContinuousClock.now >= deadline {
                throw DeviceError(
                    .deviceFailed,
                    "cannot \(what): not all came in time; check that the hosts reach each other "
                        + "(NCCL_SOCKET_IFNAME, NCCL_DEBUG=INFO)")
            }
            usleep(Self.pollMicroseconds)
        }
    }
}
