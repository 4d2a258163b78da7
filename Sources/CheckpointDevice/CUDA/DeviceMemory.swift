import CNative

/// A place in a device's memory.
public struct DeviceAddress: Hashable, Sendable {
    public let raw: UInt64
    public static func + (address: DeviceAddress, offset: Int) -> DeviceAddress {
        DeviceAddress(raw: address.raw + UInt64(offset))
    }
    init(raw: UInt64) { self.raw = raw }
}

/// Memory of one GPU that other processes can open. Freed with the last reference.
///
/// The length is a multiple of 2 MiB: the driver may put smaller allocations beside others, and a
/// handle would then share the neighbours.
public final class DeviceMemory: Sendable {
    public static let granularity = 2 << 20

    public let context: CudaContext
    public let address: DeviceAddress
    public let byteCount: Int
    /// What another process opens it with: 64 bytes (`CUipcMemHandle`).
    public let handle: [UInt8]

    /// Takes at least `byteCount` bytes.
    public init(_ context: CudaContext, byteCount: Int) throws(DeviceError) {
        let length =
            (max(byteCount, 1) + Self.granularity - 1) / Self.granularity * Self.granularity
        try context.makeCurrent()
        let table = context.table
        var address: UInt64 = 0
        // SAFETY: here and below, results are written to variables that outlive the calls.
        try unsafe table.check(
            table.raw.cuMemAlloc_v2(&address, length), "cuMemAlloc_v2",
            "take \(length) bytes of memory on \(context.device)")
        var handle = ce_cuda_ipc_handle()
        do throws(DeviceError) {
            try unsafe table.check(
                table.raw.cuIpcGetMemHandle(&handle, address), "cuIpcGetMemHandle",
                "share memory of \(context.device) with other processes")
        } catch {
            _ = table.raw.cuMemFree_v2(address)
            throw error
        }
        self.context = context
        self.address = DeviceAddress(raw: address)
        self.byteCount = length
        // SAFETY: the structure is 64 plain bytes.
        self.handle = unsafe withUnsafeBytes(of: &handle) { unsafe Array($0) }
    }

    deinit {
        try? context.makeCurrent()
        _ = context.table.raw.cuMemFree_v2(address.raw)
    }
}

/// Device memory of another process, open in this one. Closed with the last reference.
public final class ImportedMemory: Sendable {
    public let context: CudaContext
    public let address: DeviceAddress

    /// Opens the memory that `handle` (64 bytes) names, which lies on the same GPU.
    public init(_ context: CudaContext, handle: [UInt8]) throws(DeviceError) {
        guard handle.count == Int(CE_CUDA_HANDLE_BYTES) else {
            throw DeviceError(
                .deviceFailed, "a memory handle has \(handle.count) bytes instead of 64")
        }
        try context.makeCurrent()
        var name = ce_cuda_ipc_handle()
        // SAFETY: the structure is 64 plain bytes, and so many are copied.
        unsafe withUnsafeMutableBytes(of: &name) { unsafe $0.copyBytes(from: handle) }
        var address: UInt64 = 0
        try unsafe context.table.check(
            context.table.raw.cuIpcOpenMemHandle_v2(
                &address, name, CUnsignedInt(CE_CUDA_IPC_LAZY_ENABLE_PEER_ACCESS)),
            "cuIpcOpenMemHandle_v2", "open the server's memory on \(context.device)")
        self.context = context
        self.address = DeviceAddress(raw: address)
    }

    deinit {
        try? context.makeCurrent()
        _ = context.table.raw.cuIpcCloseMemHandle(address.raw)
    }
}
