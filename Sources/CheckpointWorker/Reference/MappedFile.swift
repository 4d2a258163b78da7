import CNative
import CheckpointModel
import Glibc

/// A mapped file: a segment to read from, or memory to write to. The last reference unmaps it.
///
/// `@unchecked Sendable`: address and length never change; who writes is decided by its owner, a reference
/// worker, which does so on one thread.
@safe
public final class MappedFile: @unchecked Sendable {
    let address: UnsafeMutableRawPointer
    public let byteCount: Int

    /// Maps an existing file for reading. `inode` and `byteCount` must be those of the file.
    public init(reading path: String, inode: UInt64?, byteCount: Int?) throws(WorkerError) {
        let descriptor = unsafe ce_open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW, 0)
        guard descriptor >= 0 else { throw Self.failure("open", path) }

        defer { close(descriptor) }
        var status = stat()
        guard unsafe fstat(descriptor, &status) == 0 else { throw Self.failure("fstat", path) }
        guard status.st_mode & S_IFMT == S_IFREG, inode ?? UInt64(status.st_ino) == status.st_ino,
            byteCount ?? Int(status.st_size) == status.st_size
        else {
            throw WorkerError(
                .protocolViolation, "\(path) is not the file that the catalog describes")
        }
        self.byteCount = Int(status.st_size)
        unsafe self.address = try unsafe Self.map(
            descriptor, self.byteCount, PROT_READ, path: path)
    }

    /// Makes a file of `byteCount` bytes and maps it for reading and writing.
    public init(creating path: String, byteCount: Int) throws(WorkerError) {
        let descriptor = unsafe ce_open(
            path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0o600)
        guard descriptor >= 0 else { throw Self.failure("open", path) }

        defer { close(descriptor) }
        guard ftruncate(descriptor, byteCount) == 0 else { throw Self.failure("ftruncate", path) }
        self.byteCount = byteCount
        unsafe self.address = try unsafe Self.map(
            descriptor, byteCount, PROT_READ | PROT_WRITE, path: path)
    }

    deinit {
        // SAFETY: mapped in `init` with this length, unmapped once.
        unsafe munmap(address, max(byteCount, 1))
    }

    /// The mapped bytes, for as long as the call lasts.
    public func withBytes<Result>(_ body: (Span<UInt8>) -> Result) -> Result {
        let buffer = unsafe UnsafeBufferPointer(
            start: address.assumingMemoryBound(to: UInt8.self), count: byteCount)
        return unsafe body(buffer.span)
    }

    private static func map(
        _ descriptor: CInt, _ byteCount: Int, _ protection: CInt, path: String
    ) throws(WorkerError) -> UnsafeMutableRawPointer {
        // SAFETY: a fresh mapping touches no memory that is in use.
        let address = unsafe mmap(nil, max(byteCount, 1), protection, MAP_SHARED, descriptor, 0)
        guard let address = unsafe address, unsafe address != MAP_FAILED else {
            throw failure("mmap", path)
        }
        return unsafe address
    }

    private static func failure(_ call: String, _ path: String) -> WorkerError {
        WorkerError(.callFailed, "cannot map \(path): \(call) failed with errno \(errno)")
    }
}

extension MappedFile {
    /// Whether `byteCount` bytes from `offset` on are those of `other` from `otherOffset` on.
    public func equals(
        _ other: MappedFile, at offset: Int, otherOffset: Int, byteCount: Int
    ) -> Bool {
        guard ByteRange(offset: offset, byteCount: byteCount)?.end ?? .max <= self.byteCount,
            ByteRange(offset: otherOffset, byteCount: byteCount)?.end ?? .max <= other.byteCount
        else { return false }
        // SAFETY: both ranges lie inside their mappings.
        return unsafe memcmp(address + offset, other.address + otherOffset, byteCount) == 0
    }
}
