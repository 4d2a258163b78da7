import CNative
import CheckpointModel

/// A queue of device work. Owned by one thread at a time; ends its work before it goes.
public final class CudaStream: Sendable {
    public let context: CudaContext
    public let handle: UInt
    private var table: CudaTable { context.table }
    private var device: CudaDevice { context.device }

    public init(_ context: CudaContext) throws(DeviceError) {
        try context.makeCurrent()
        var handle: UInt = 0
        // SAFETY: the result is written to a variable that outlives the call.
        try unsafe context.table.check(
            context.table.raw.cuStreamCreate(&handle, CUnsignedInt(CE_CUDA_STREAM_NON_BLOCKING)),
            "cuStreamCreate", "make a stream on \(context.device)")
        self.context = context
        self.handle = handle
    }

    deinit {
        try? context.makeCurrent()
        _ = table.raw.cuStreamDestroy_v2(handle)
    }

    /// Makes the stream's context that of the calling thread: to be called before the others.
    public func bindThread() throws(DeviceError) { try context.makeCurrent() }

    /// Queues a copy from pinned host memory to the device.
    ///
    /// The caller guarantees that both ranges are valid until the copy is done.
    @unsafe
    public func copy(
        fromHost source: UnsafeRawPointer, to target: DeviceAddress, byteCount: Int
    ) throws(DeviceError) {
        try unsafe table.check(
            table.raw.cuMemcpyHtoDAsync_v2(target.raw, source, byteCount, handle),
            "cuMemcpyHtoDAsync_v2", "copy \(byteCount) bytes to \(device)")
    }

    /// Queues a copy from the device to host memory, under the same conditions.
    @unsafe
    public func copy(
        from source: DeviceAddress, toHost target: UnsafeMutableRawPointer, byteCount: Int
    ) throws(DeviceError) {
        try unsafe table.check(
            table.raw.cuMemcpyDtoHAsync_v2(target, source.raw, byteCount, handle),
            "cuMemcpyDtoHAsync_v2", "copy \(byteCount) bytes from \(device)")
    }

    /// Queues a copy between devices, or inside one. Access between the two has to be enabled.
    public func copy(from source: DeviceAddress, to target: DeviceAddress, byteCount: Int)
        throws(DeviceError)
    {
        try table.check(
            table.raw.cuMemcpyDtoDAsync_v2(target.raw, source.raw, byteCount, handle),
            "cuMemcpyDtoDAsync_v2", "copy \(byteCount) bytes from \(device) to a peer")
    }

    /// Queues a copy of `rowCount` rows inside the device.
    public func copyRows(
        from source: DeviceAddress, stride sourceStride: Int, to target: DeviceAddress,
        stride targetStride: Int, rowByteCount: Int, rowCount: Int
    ) throws(DeviceError) {
        var copy = unsafe ce_cuda_memcpy2d()
        unsafe copy.src_memory_type = CUnsignedInt(CE_CUDA_MEMORY_TYPE_DEVICE)
        unsafe copy.src_device = source.raw
        unsafe copy.src_pitch = sourceStride
        unsafe copy.dst_memory_type = CUnsignedInt(CE_CUDA_MEMORY_TYPE_DEVICE)
        unsafe copy.dst_device = target.raw
        unsafe copy.dst_pitch = targetStride
        unsafe copy.width_bytes = rowByteCount
        unsafe copy.height = rowCount
        // SAFETY: the description outlives the call, which copies it.
        try unsafe table.check(
            table.raw.cuMemcpy2DAsync_v2(&copy, handle), "cuMemcpy2DAsync_v2",
            "copy \(rowCount) rows of \(rowByteCount) bytes on \(device)")
    }

    /// Queues the setting of every byte of a range.
    public func fill(_ target: DeviceAddress, with byte: UInt8, byteCount: Int)
        throws(DeviceError)
    {
        try table.check(
            table.raw.cuMemsetD8Async(target.raw, byte, byteCount, handle), "cuMemsetD8Async",
            "set \(byteCount) bytes on \(device)")
    }

    /// Lets what is queued from now on wait for what `event` has recorded last.
    public func wait(for event: CudaEvent) throws(DeviceError) {
        try table.check(
            table.raw.cuStreamWaitEvent(handle, event.handle, 0), "cuStreamWaitEvent",
            "order the work on \(device)")
    }

    /// Notes the end of what is queued so far.
    public func record(_ event: CudaEvent) throws(DeviceError) {
        try table.check(
            table.raw.cuEventRecord(event.handle, handle), "cuEventRecord",
            "note the end of work on \(device)")
    }

    /// Blocks the calling thread until everything that is queued is done.
    public func synchronize() throws(DeviceError) {
        try context.makeCurrent()
        try table.check(
            table.raw.cuStreamSynchronize(handle), "cuStreamSynchronize",
            "finish the work on \(device)")
    }
}

/// A mark in a stream, with its time.
public final class CudaEvent: Sendable {
    public let context: CudaContext
    let handle: UInt

    public init(_ context: CudaContext) throws(DeviceError) {
        try context.makeCurrent()
        var handle: UInt = 0
        // SAFETY: the result is written to a variable that outlives the call.
        try unsafe context.table.check(
            context.table.raw.cuEventCreate(&handle, CUnsignedInt(CE_CUDA_EVENT_DEFAULT)),
            "cuEventCreate", "make an event on \(context.device)")
        self.context = context
        self.handle = handle
    }

    deinit {
        try? context.makeCurrent()
        _ = context.table.raw.cuEventDestroy_v2(handle)
    }

    /// Blocks the calling thread until what was recorded last is done.
    public func synchronize() throws(DeviceError) {
        try context.table.check(
            context.table.raw.cuEventSynchronize(handle), "cuEventSynchronize",
            "finish the work on \(context.device)")
    }

    /// Whether what was recorded last is done.
    public func isDone() throws(DeviceError) -> Bool {
        let code = context.table.raw.cuEventQuery(handle)
        if code == CInt(CE_CUDA_ERROR_NOT_READY) { return false }
        try context.table.check(code, "cuEventQuery", "ask for the work on \(context.device)")
        return true
    }

    /// Seconds from `start` to this event; both are done, and of one device. From any thread.
    public func seconds(since start: CudaEvent) throws(DeviceError) -> Double {
        try context.makeCurrent()
        var milliseconds: Float = 0
        // SAFETY: the result is written to a variable that outlives the call.
        try unsafe context.table.check(
            context.table.raw.cuEventElapsedTime(&milliseconds, start.handle, handle),
            "cuEventElapsedTime", "time the work on \(context.device)")
        return Double(milliseconds) / 1000
    }
}
