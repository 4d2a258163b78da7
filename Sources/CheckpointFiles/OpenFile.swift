import CNative
import CheckpointNative
import Glibc

/// One regular file, open for reading. The last reference closes it.
final class OpenFile: Sendable {
    let path: String
    let descriptor: CInt
    let identity: FileIdentity

    /// Opens without waiting and without following what is no regular file; `roots` are where it may lie.
    init(_ path: String, in roots: FileRoots) throws(FilesError) {
        // SAFETY: the bridged string lives for the call.
        let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else { throw FilesError(errno, path, "it cannot be opened") }
        // A library that gets no descriptor ends the process; this call fails instead.
        guard !Descriptors.isKeptForOthers(descriptor) else {
            close(descriptor)
            throw FilesError(EMFILE, path, "it cannot be opened")
        }
        var status = stat()
        // SAFETY: `status` outlives the call.
        guard unsafe fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG else {
            close(descriptor)
            throw FilesError(.notACheckpoint, path, "it is not a regular file")
        }
        do throws(FilesError) {
            try roots.check(descriptor, path)
        } catch {
            close(descriptor)
            throw error
        }
        self.path = path
        self.descriptor = descriptor
        self.identity = FileIdentity(status)
    }

    deinit { close(descriptor) }

    /// Exactly `byteCount` bytes from `offset` on.
    func read(at offset: Int, byteCount: Int) throws(FilesError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: byteCount)
        try read(at: offset, byteCount: byteCount, into: &bytes)
        return bytes
    }

    /// Exactly `byteCount` bytes from `offset` on, to the begin of `buffer`, which has room for them.
    func read(at offset: Int, byteCount: Int, into buffer: inout [UInt8]) throws(FilesError) {
        precondition(byteCount <= buffer.count, "the buffer has room for what is read")
        var filled = 0
        while filled < byteCount {
            // SAFETY: `filled ..< byteCount` lies inside the buffer, which lives for the call.
            let count = unsafe buffer.withUnsafeMutableBytes { bytes in
                unsafe pread(
                    descriptor, bytes.baseAddress.map { unsafe $0 + filled }, byteCount - filled,
                    off_t(offset + filled))
            }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { throw failure(at: offset + filled, count, errno) }
            filled += count
        }
    }

    /// Why `pread` gave `count` bytes, none or an error of this number.
    private func failure(at offset: Int, _ count: Int, _ number: CInt) -> FilesError {
        guard count < 0 else {
            return FilesError(
                .changed, path,
                "the file ends at byte \(offset), earlier than when it was opened: it was made "
                    + "shorter meanwhile; write the next version beside files that are in use")
        }
        return FilesError(number, path, "it cannot be read at byte \(offset)")
    }

    /// Whether the file lies in memory: tmpfs, ramfs or hugetlbfs.
    var isInSharedMemory: Bool {
        [0x0102_1994, 0x8584_58f6, 0x9584_58f6].contains(ce_file_system_type(descriptor))
    }
}
