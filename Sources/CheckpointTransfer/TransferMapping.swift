/// A file of shared memory that the agent maps whole: one that peers can read, or one that is read into, which
/// over TCP peers cannot reach.
public struct TransferMapping: Sendable, Hashable {
    public let path: String
    /// The file's inode, so that another file under the same path is refused.
    public let inode: UInt64
    /// The file's length.
    public let byteCount: Int
    /// Whether reads may put bytes into it.
    public let isWritable: Bool

    public init(path: String, inode: UInt64, byteCount: Int, isWritable: Bool) {
        self.path = path
        self.inode = inode
        self.byteCount = byteCount
        self.isWritable = isWritable
    }
}
