import CheckpointModel
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

    /// Deletes the file if it has the name under which it was opened, and is not where a link leads.
    public func remove() throws(FilesError) {
        guard givenPath.utf8.elementsEqual(path.utf8) else {
            throw FilesError(.changed, givenPath, "it is a link to \(path), which was not named")
        }
        // SAFETY: the bridged string lives for the call.
        let directory = unsafe Glibc.open(
            path.directoryPath, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
        guard directory >= 0 else { throw FilesError(errno, path, "it cannot be deleted") }
        defer { close(directory) }
        let name = path.lastPathComponent
        var status = stat()
        // SAFETY: the bridged string and `status` live for the call.
        guard unsafe fstatat(directory, name, &status, AT_SYMLINK_NOFOLLOW) == 0,
            status.st_mode & S_IFMT == S_IFREG, UInt64(status.st_dev) == identity.device,
            UInt64(status.st_ino) == identity.inode
        else { throw FilesError(.changed, path, "another file has its name by now") }
        // SAFETY: the bridged string lives for the call.
        guard unsafe unlinkat(directory, name, 0) == 0 else {
            throw FilesError(errno, path, "it cannot be deleted")
        }
    }

    /// Throws where a path leads through a symbolic link: files that it names may be others' own.
    public static func refuseLinks(in path: String) throws(FilesError) {
        var prefix = ""
        for part in path.split(separator: "/", omittingEmptySubsequences: false) {
            prefix += part
            var status = stat()
            // SAFETY: the bridged string and `status` live for the call.
            let isLink = unsafe lstat(prefix, &status) == 0 && status.st_mode & S_IFMT == S_IFLNK
            guard !isLink else {
                throw FilesError(
                    .permissionDenied, path,
                    "\(prefix) is a link, and files behind links are not deleted: name the directory "
                        + "that they are in, or register them without \"consume\"")
            }
            prefix += "/"
        }
    }
}
