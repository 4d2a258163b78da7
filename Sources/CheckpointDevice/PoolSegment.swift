/// One file of the pool: shared memory of a fixed length that other processes map by its path.
///
/// Owned by the ``SegmentPool`` that made it, which alone removes it.
public final class PoolSegment: Sendable {
    public let path: String
    /// The length of the file: the bytes asked for, rounded up to whole pages.
    public let byteCount: Int
    public let inode: UInt64
    /// Open for reading and writing as long as the segment lives.
    public let descriptor: CInt
    private let table: HostTable

    init(path: String, byteCount: Int, inode: UInt64, descriptor: CInt, table: HostTable) {
        self.path = path
        self.byteCount = byteCount
        self.inode = inode
        self.descriptor = descriptor
        self.table = table
    }

    deinit {
        _ = table.close(descriptor)
        try? table.removeFile(path)
    }
}
