import CNative
import Glibc

/// Why a file of shared memory cannot be used.
public enum FileFailure: Error, Hashable {
    /// A call of the system that failed, and its `errno`.
    case call(String, errno: CInt)
    /// The file is another one than was expected, is shorter by now, or is none at all but a pipe or a directory.
    case changed
}

/// A regular file that is open; closed with this value.
///
/// To read it never ends the process, whatever its owner does to the file, unlike a look at a mapping of it:
/// whoever touches a mapped page that the file has lost gets a SIGBUS.
public struct OpenedFile: ~Copyable {
    let descriptor: CInt
    /// Bytes that the file had when it was opened.
    public let byteCount: Int

    /// Opens the file at `path`, which is the one of `inode` and `byteCount` where these are known, for reading,
    /// with `writes` for both. Links are not followed, and what is no file is not waited for.
    public init(
        _ path: String, inode: UInt64? = nil, byteCount: Int? = nil, writes: Bool = false
    ) throws(FileFailure) {
        let mode = (writes ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK
        // SAFETY: the bridged string lives for the call.
        let descriptor = unsafe ce_open(path, mode, 0)
        guard descriptor >= 0 else { throw .call("open", errno: errno) }
        var status = stat()
        // SAFETY: `status` outlives the call.
        guard unsafe fstat(descriptor, &status) == 0 else {
            let number = errno
            close(descriptor)
            throw .call("fstat", errno: number)
        }
        guard status.st_mode & S_IFMT == S_IFREG, inode ?? UInt64(status.st_ino) == status.st_ino,
            byteCount ?? Int(status.st_size) == status.st_size
        else {
            close(descriptor)
            throw .changed
        }
        self.descriptor = descriptor
        self.byteCount = Int(status.st_size)
    }

    deinit { close(descriptor) }

    /// Reads `count` bytes from `offset` on to the begin of `buffer`, which has room for them. Throws
    /// ``FileFailure/changed`` where the file ends before.
    public func read(at offset: Int, count: Int, into buffer: inout [UInt8]) throws(FileFailure) {
        precondition(count <= buffer.count, "the buffer has room for what is read")
        var done = 0
        while done < count {
            // SAFETY: the bytes from `done` to `count` lie inside the buffer, which lives for the call.
            let got = unsafe buffer.withUnsafeMutableBytes { bytes in
                unsafe pread(
                    descriptor, bytes.baseAddress.map { unsafe $0 + done }, count - done,
                    off_t(offset + done))
            }
            if got < 0, errno == EINTR { continue }
            guard got >= 0 else { throw .call("pread", errno: errno) }
            guard got > 0 else { throw .changed }
            done += got
        }
    }
}
