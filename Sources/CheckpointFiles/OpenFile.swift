import CNative
import Glibc

/// One regular file, open for reading. The last reference closes it.
final class OpenFile: Sendable {
    let path: String
    let descriptor: CInt
    let identity: FileIdentity

    /// Opens without waiting and without following what is no regular file.
    init(_ path: String) throws(FilesError) {
        // SAFETY: the bridged string lives for the call.
        let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else {
            throw FilesError(
                .unreadable, path, "it cannot be opened", cause: FileIdentity.text(errno))
        }
        var status = stat()
        // SAFETY: `status` outlives the call.
        guard unsafe fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG else {
            close(descriptor)
            throw FilesError(.notACheckpoint, path, "it is not a regular file")
        }
        self.path = path
        self.descriptor = descriptor
        self.identity = FileIdentity(status)
    }

    deinit { close(descriptor) }

    /// Exactly `byteCount` bytes from `offset` on.
    func read(at offset: Int, byteCount: Int) throws(FilesError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: byteCount)
        var done = 0
        while done < byteCount {
            // SAFETY: the rest of `bytes` is what is asked for.
            let count = unsafe bytes.withUnsafeMutableBytes { buffer in
                unsafe pread(
                    descriptor, buffer.baseAddress.map { unsafe $0 + done }, byteCount - done,
                    off_t(offset + done))
            }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else {
                throw FilesError(
                    .inputOutput, path, "\(byteCount) bytes at \(offset) cannot be read",
                    cause: count == 0 ? "the file ends" : FileIdentity.text(errno))
            }
            done += count
        }
        return bytes
    }

    /// Whether the file lies in memory: tmpfs, ramfs or hugetlbfs.
    var isInSharedMemory: Bool {
        [0x0102_1994, 0x8584_58f6, 0x9584_58f6].contains(ce_file_system_type(descriptor))
    }
}
