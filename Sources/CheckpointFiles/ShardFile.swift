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
    let identity: FileIdentity

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

    /// Deletes the file.
    public func remove() throws(FilesError) {
        // SAFETY: the bridged string lives for the call.
        guard unsafe unlink(path) == 0 else {
            throw FilesError(
                .inputOutput, path, "it cannot be deleted", cause: FileIdentity.text(errno))
        }
    }
}
