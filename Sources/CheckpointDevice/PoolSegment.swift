/// One file of the pool: shared memory of a fixed length that other processes map by its path.
///
/// Owned by the ``SegmentPool`` that made it, which alone removes it. It is not kept open: a checkpoint may have more
/// files than a process may have descriptors.
public final class PoolSegment: Sendable {
    public let path: String
    /// The length of the file: the bytes asked for, rounded up to whole pages.
    public let byteCount: Int
    public let inode: UInt64
    private let table: HostTable

    init(path: String, byteCount: Int, inode: UInt64, table: HostTable) {
        self.path = path
        self.byteCount = byteCount
        self.inode = inode
        self.table = table
    }

    deinit {
        try? table.removeFile(path)
    }
}
