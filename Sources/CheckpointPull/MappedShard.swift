import CNative
public import CheckpointModel
import CheckpointNative
import Glibc

/// The data section of one shard in shared memory, mapped for reading. The last reference unmaps it.
///
/// `@unchecked Sendable`: address and length never change, and the bytes are only read. They may change
/// underneath, where another process writes to the file: that is what checksums are for.
@safe
public final class MappedShard: @unchecked Sendable {
    /// Bytes of the data section.
    public let byteCount: Int
    private let address: UnsafeMutableRawPointer
    private let mappedByteCount: Int
    private let dataOffset: Int

    /// Maps the file of `location`, whose data section has to have room for `byteCount` bytes.
    public init(_ location: SegmentLocation, byteCount: Int) throws(PullError) {
        let descriptor = unsafe ce_open(location.path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW, 0)
        guard descriptor >= 0 else {
            throw PullError(.system, "cannot open \(location.path): errno \(errno)")
        }
        defer { close(descriptor) }
        var status = stat()
        // SAFETY: `status` outlives the call.
        guard unsafe fstat(descriptor, &status) == 0, status.st_ino == location.inode,
            Int(status.st_size) == location.fileByteCount, byteCount >= 0,
            location.dataOffset >= 0, location.dataOffset <= location.fileByteCount,
            byteCount <= location.fileByteCount - location.dataOffset
        else {
            throw PullError(
                .system, "\(location.path) is another file by now; register the checkpoint again")
        }
        let length = max(location.fileByteCount, 1)
        // SAFETY: a fresh mapping touches no memory that is in use.
        let mapped = unsafe mmap(nil, length, PROT_READ, MAP_SHARED, descriptor, 0)
        guard let mapped = unsafe mapped, unsafe mapped != MAP_FAILED else {
            throw PullError(.system, "cannot map \(location.path): errno \(errno)")
        }
        unsafe address = mapped
        mappedByteCount = length
        dataOffset = location.dataOffset
        self.byteCount = byteCount
    }

    deinit {
        // SAFETY: mapped in `init` with this length, unmapped once.
        unsafe munmap(address, mappedByteCount)
    }

    /// The CRC-32C of the bytes of `range`, which lie in the data section.
    public func checksum(of range: ByteRange) -> UInt32 {
        checksum(offset: range.offset, byteCount: range.byteCount)
    }

    /// The CRC-32C of so many bytes from `offset` on, which lie in the data section.
    func checksum(offset: Int, byteCount count: Int) -> UInt32 {
        precondition(
            offset >= 0 && count >= 0 && count <= byteCount && offset <= byteCount - count,
            "the range lies in the data section")
        // SAFETY: checked above; the mapping outlives the call.
        return unsafe Checksum.crc32c(
            UnsafeRawBufferPointer(start: address + dataOffset + offset, count: count))
    }
}
