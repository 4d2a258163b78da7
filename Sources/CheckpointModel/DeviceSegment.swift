/// Where another process finds a slot of a GPU's memory.
///
/// The bytes of the slot start at `dataOffset` of the allocation that `handle` opens.
public struct DeviceSegment: Hashable, Sendable {
    /// A CUDA IPC memory handle, 64 bytes.
    public let handle: [UInt8]
    /// Bytes of the whole allocation.
    public let byteCount: Int
    /// Where the slot starts.
    public let dataOffset: Int

    public static let handleByteCount = 64

    public init(handle: [UInt8], byteCount: Int, dataOffset: Int) {
        self.handle = handle
        self.byteCount = byteCount
        self.dataOffset = dataOffset
    }
}
