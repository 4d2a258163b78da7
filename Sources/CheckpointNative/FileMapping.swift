import CNative
import Glibc

/// A file in shared memory, mapped whole and shared. The last reference unmaps it.
///
/// `@unchecked Sendable`: address and length never change; who reads and writes is decided by its owner. The
/// bytes may change underneath, where another process writes to the file.
@safe
public final class FileMapping: @unchecked Sendable {
    /// Why there is none.
    public enum Failure: Error {
        /// A call of the system that failed, and its `errno`.
        case call(String, errno: CInt)
        /// The file is another one than was expected, or none at all but a pipe or a directory.
        case changed
    }

    /// Bytes of the file.
    public let byteCount: Int
    /// Where the file begins; valid as long as this object.
    @unsafe public let address: UnsafeMutableRawPointer

    /// Maps the file at `path`, which is the one of `inode` and `byteCount` where these are known, for reading,
    /// with `writes` for both. Links are not followed.
    public init(
        _ path: String, inode: UInt64? = nil, byteCount: Int? = nil, writes: Bool = false
    ) throws(Failure) {
        let mode = (writes ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK
        // SAFETY: the bridged string lives for the call.
        let descriptor = unsafe ce_open(path, mode, 0)
        guard descriptor >= 0 else { throw .call("open", errno: errno) }
        defer { close(descriptor) }
        var status = stat()
        // SAFETY: `status` outlives the call.
        guard unsafe fstat(descriptor, &status) == 0 else { throw .call("fstat", errno: errno) }
        guard status.st_mode & S_IFMT == S_IFREG, inode ?? UInt64(status.st_ino) == status.st_ino,
            byteCount ?? Int(status.st_size) == status.st_size
        else { throw .changed }
        self.byteCount = Int(status.st_size)
        unsafe address = try unsafe Self.map(descriptor, self.byteCount, writes: writes)
    }

    /// Makes a file of `byteCount` bytes, or empties it, and maps it for reading and writing.
    public init(creating path: String, byteCount: Int) throws(Failure) {
        let mode = O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW
        // SAFETY: the bridged string lives for the call.
        let descriptor = unsafe ce_open(path, mode, 0o600)
        guard descriptor >= 0 else { throw .call("open", errno: errno) }
        defer { close(descriptor) }
        guard ftruncate(descriptor, byteCount) == 0 else {
            throw .call("ftruncate", errno: errno)
        }
        self.byteCount = byteCount
        unsafe address = try unsafe Self.map(descriptor, byteCount, writes: true)
    }

    deinit {
        // SAFETY: mapped in `init` with this length, unmapped once.
        unsafe munmap(address, max(byteCount, 1))
    }

    @unsafe
    private static func map(_ descriptor: CInt, _ byteCount: Int, writes: Bool) throws(Failure)
        -> UnsafeMutableRawPointer
    {
        let protection = writes ? PROT_READ | PROT_WRITE : PROT_READ
        // SAFETY: a fresh mapping touches no memory that is in use.
        let mapped = unsafe mmap(nil, max(byteCount, 1), protection, MAP_SHARED, descriptor, 0)
        guard let mapped = unsafe mapped, unsafe mapped != MAP_FAILED else {
            throw .call("mmap", errno: errno)
        }
        return unsafe mapped
    }
}
