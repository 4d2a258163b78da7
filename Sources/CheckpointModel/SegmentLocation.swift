/// Where another process finds the bytes of a shard in shared memory.
///
/// The bytes of the shard's data section start at `dataOffset` of the file. `inode` lets the reader
/// notice that the path names another file by now.
public struct SegmentLocation: Hashable, Sendable {
    public let path: String
    public let inode: UInt64
    /// Bytes of the whole file.
    public let fileByteCount: Int
    /// Where the data section starts.
    public let dataOffset: Int

    public init(path: String, inode: UInt64, fileByteCount: Int, dataOffset: Int) {
        self.path = path
        self.inode = inode
        self.fileByteCount = fileByteCount
        self.dataOffset = dataOffset
    }
}
