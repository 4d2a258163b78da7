import CNative
public import CheckpointModel

/// The CUDA driver of this process, and the GPUs that it shows.
public struct CudaDriver: Sendable {
    public let table: CudaTable
    /// As `CUDA_VISIBLE_DEVICES` orders them.
    public let devices: [CudaDevice]
    /// For example 13000.
    public let version: Int

    /// Initialises the driver. A machine without a GPU has no devices.
    public init(table: CudaTable) throws(DeviceError) {
        self.table = table
        var version: CInt = 0
        // SAFETY: here and below, results are written to variables that outlive the calls.
        unsafe _ = table.raw.cuDriverGetVersion(&version)
        self.version = Int(version)
        let code = table.raw.cuInit(0)
        if code == CInt(CE_CUDA_ERROR_NO_DEVICE) {
            devices = []
            return
        }
        try table.check(code, "cuInit", "use the CUDA driver")
        var count: CInt = 0
        try unsafe table.check(
            table.raw.cuDeviceGetCount(&count), "cuDeviceGetCount", "count the GPUs")
        devices = try (0..<Int(count)).map { index throws(DeviceError) in
            try CudaDevice(index: index, table: table)
        }
    }
}

/// One GPU that this process sees.
public struct CudaDevice: Hashable, Sendable, CustomStringConvertible {
    /// Its place among the visible ones.
    public let index: Int
    /// `GPU-…`.
    public let id: DeviceID
    public let name: String
    public let byteCount: Int
    let handle: CInt

    public var description: String { "GPU \(index) (\(id))" }

    init(index: Int, table: CudaTable) throws(DeviceError) {
        var handle: CInt = 0
        // SAFETY: results are written to variables that outlive the calls; the name's length is given.
        try unsafe table.check(
            table.raw.cuDeviceGet(&handle, CInt(index)), "cuDeviceGet", "open GPU \(index)")
        var name = [CChar](repeating: 0, count: 256)
        try unsafe table.check(
            table.raw.cuDeviceGetName(&name, CInt(name.count), handle), "cuDeviceGetName",
            "name GPU \(index)")
        var uuid = ce_cuda_uuid()
        try unsafe table.check(
            table.raw.cuDeviceGetUuid_v2(&uuid, handle), "cuDeviceGetUuid_v2",
            "read the UUID of GPU \(index)")
        var byteCount = 0
        try unsafe table.check(
            table.raw.cuDeviceTotalMem_v2(&byteCount, handle), "cuDeviceTotalMem_v2",
            "read the memory size of GPU \(index)")
        self.index = index
        self.handle = handle
        self.byteCount = byteCount
        self.name = String(
            decoding: name.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
        // SAFETY: the structure is 16 plain bytes.
        self.id = .gpu(uuid: unsafe withUnsafeBytes(of: &uuid) { unsafe Array($0) })
    }
}
