import CNative

/// The primary context of one GPU, shared with whatever else this process does there.
///
/// Owns one reference to it. Everything made through it keeps it alive.
public final class CudaContext: Sendable {
    public let device: CudaDevice
    let table: CudaTable
    let handle: UInt

    /// Takes a reference to the context, which is made if it is the first; that takes a while.
    public init(_ device: CudaDevice, table: CudaTable) throws(DeviceError) {
        var handle: UInt = 0
        // SAFETY: the result is written to a variable that outlives the call.
        try unsafe table.check(
            table.raw.cuDevicePrimaryCtxRetain(&handle, device.handle), "cuDevicePrimaryCtxRetain",
            "make a context on \(device)")
        self.device = device
        self.table = table
        self.handle = handle
    }

    deinit { _ = table.raw.cuDevicePrimaryCtxRelease_v2(device.handle) }

    /// Makes the context that of the calling thread, as most calls need it.
    func makeCurrent() throws(DeviceError) {
        try table.check(
            table.raw.cuCtxSetCurrent(handle), "cuCtxSetCurrent", "use the context of \(device)")
    }

    /// Free and total bytes of the GPU's memory, now.
    public func memory() throws(DeviceError) -> (free: Int, total: Int) {
        try makeCurrent()
        var free = 0
        var total = 0
        // SAFETY: the results are written to variables that outlive the call.
        try unsafe table.check(
            table.raw.cuMemGetInfo_v2(&free, &total), "cuMemGetInfo_v2",
            "read the free memory of \(device)")
        return (free, total)
    }

    /// Whether host memory that is mapped for reading can be pinned.
    func canPinForReading() throws(DeviceError) -> Bool {
        var result: CInt = 0
        // SAFETY: the result is written to a variable that outlives the call.
        try unsafe table.check(
            table.raw.cuDeviceGetAttribute(
                &result, CInt(CE_CUDA_ATTRIBUTE_READ_ONLY_HOST_REGISTER), device.handle),
            "cuDeviceGetAttribute", "tell how \(device) pins memory")
        return result != 0
    }

    /// Whether this GPU can write to the memory of `other` without the host.
    public func canAccess(_ other: CudaContext) throws(DeviceError) -> Bool {
        var result: CInt = 0
        // SAFETY: the result is written to a variable that outlives the call.
        try unsafe table.check(
            table.raw.cuDeviceCanAccessPeer(&result, device.handle, other.device.handle),
            "cuDeviceCanAccessPeer", "tell whether \(device) reaches \(other.device)")
        return result != 0
    }

    /// Lets copies of this GPU go to the memory of `other` directly; once is enough.
    public func enableAccess(to other: CudaContext) throws(DeviceError) {
        try makeCurrent()
        let code = table.raw.cuCtxEnablePeerAccess(other.handle, 0)
        if code == CInt(CE_CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED) { return }
        try table.check(
            code, "cuCtxEnablePeerAccess", "let \(device) write to \(other.device)")
    }
}
