import CNative
import Glibc

/// A file in shared memory, mapped whole and shared. The last reference unmaps it.
///
/// A file that becomes shorter takes the pages of its mappings away: whoever touches one then ends with a SIGBUS.
/// This process maps what nobody else shortens: files that it has made. Those of others it reads with
/// ``OpenedFile``; only what GPUs copy from has to be mapped, and its pages are pinned.
///
/// `@unchecked Sendable`: address and length never change; who reads and writes is decided by its owner. The
/// bytes may change underneath, where another process writes to the file.
@safe
public final class FileMapping: @unchecked Sendable {
    /// Bytes of the file.
    public let byteCount: Int
    /// Where the file begins; valid as long as this object.
    @unsafe public let address: UnsafeMutableRawPointer

    /// Maps the file at `path`, which is the one of `inode` and `byteCount` where these are known, for reading,
    /// with `writes` for both. Links are not followed.
    public init(
        _ path: String, inode: UInt64? = nil, byteCount: Int? = nil, writes: Bool = false
    ) throws(FileFailure) {
        let file = try OpenedFile(path, inode: inode, byteCount: byteCount, writes: writes)
        self.byteCount = file.byteCount
        unsafe address = try unsafe Self.map(file.descriptor, file.byteCount, writes: writes)
    }

    /// Makes a file of `byteCount` bytes, or empties it, and maps it for reading and writing.
    public init(creating path: String, byteCount: Int) throws(FileFailure) {
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
    private static func map(_ descriptor: CInt, _ byteCount: Int, writes: Bool) throws(FileFailure)
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
