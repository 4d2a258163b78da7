import Glibc

/// One safetensors file of a checkpoint: where it is and where its data lie.
public struct ShardFile: Hashable, Sendable {
    /// Absolute, symbolic links resolved.
    public let path: String
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

    /// Throws when the path no longer names the file that was opened, with the same length and time
    /// of modification.
    public func checkUnchanged() throws(FilesError) {
        guard try OpenFile(path).identity == identity else {
            throw FilesError(
                .changed, path,
                "the file was replaced or written to since it was registered; register it again")
        }
    }

    /// The shard with the time of modification of now: pinning a file for GPUs counts as a write to it.
    /// Throws when the path names another file.
    public func withCurrentTime() throws(FilesError) -> ShardFile {
        var shard = self
        shard.identity = try OpenFile(path).identity
        guard shard.identity.device == identity.device, shard.identity.inode == identity.inode,
            shard.identity.byteCount == identity.byteCount
        else {
            throw FilesError(.changed, path, "the file was replaced; register it again")
        }
        return shard
    }

    /// Deletes the file.
    public func remove() throws(FilesError) {
        // SAFETY: the bridged string lives for the call.
        guard unsafe unlink(path) == 0 else {
            throw FilesError(
                .inputOutput, path, "it cannot be deleted", cause: FileIdentity.text(errno))
        }
    }
}
