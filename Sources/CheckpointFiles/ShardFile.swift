import Glibc

/// One safetensors file of a checkpoint: where it is and where its data lie.
public struct ShardFile: Hashable, Sendable {
    /// Absolute, symbolic links resolved.
    public let path: String
    /// Absolute, with the name that was given, which may be that of a link: what people know the file by.
    public let givenPath: String
    public let byteCount: Int
    /// Where the data section starts.
    public let dataOffset: Int
    /// What the header's `__metadata__` says.
    public let metadata: [String: String]
    /// Whether the file lies in memory already: on a tmpfs, ramfs or hugetlbfs.
    public let isSharedMemory: Bool
    private(set) var identity: FileIdentity

    public var dataByteCount: Int { byteCount - dataOffset }
    public var inode: UInt64 { identity.inode }

    /// Throws when the path no longer names the file that was opened, with the same length and times
    /// of modification and change.
    public func checkUnchanged() throws(FilesError) {
        guard FileIdentity(path: path) == identity else {
            throw FilesError(
                .changed, givenPath,
                "the file was replaced or written to since it was registered; register it again, and "
                    + "write the next version beside the files that are registered, not over them")
        }
    }

    /// The shard with the times of now: pinning a file for GPUs counts as a write to it.
    /// Throws when the path names another file.
    public func withCurrentTime() throws(FilesError) -> ShardFile {
        var shard = self
        guard let now = FileIdentity(path: path), now.device == identity.device,
            now.inode == identity.inode, now.byteCount == identity.byteCount
        else {
            throw FilesError(.changed, givenPath, "the file was replaced; register it again")
        }
        shard.identity = now
        return shard
    }

    /// Deletes the file.
    public func remove() throws(FilesError) {
        // SAFETY: the bridged string lives for the call.
        guard unsafe unlink(path) == 0 else {
            throw FilesError(errno, path, "it cannot be deleted")
        }
    }
}
