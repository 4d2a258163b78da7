/// Where another process finds a piece of a GPU's memory.
///
/// Its bytes start at `dataOffset` of the allocation that `handle` opens.
public struct DeviceSegment: Hashable, Sendable {
    /// A CUDA IPC memory handle, 64 bytes.
    public let handle: [UInt8]
    /// Bytes of the whole allocation.
    public let byteCount: Int
    /// Where the piece starts.
    public let dataOffset: Int

    public static let handleByteCount = 64

    public init(handle: [UInt8], byteCount: Int, dataOffset: Int) {
        self.handle = handle
        self.byteCount = byteCount
        self.dataOffset = dataOffset
    }
}
