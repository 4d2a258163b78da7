public import CheckpointModel
import CheckpointNative

/// The data section of one shard in shared memory, mapped for reading. Its bytes may change underneath, where
/// another process writes to the file: that is what checksums are for.
@safe
public final class MappedShard: Sendable {
    /// Bytes of the data section.
    public let byteCount: Int
    private let dataOffset: Int
    private let file: FileMapping

    /// Maps the file of `location`, whose data section has to have room for `byteCount` bytes.
    public init(_ location: SegmentLocation, byteCount: Int) throws(PullError) {
        do throws(FileMapping.Failure) {
            guard byteCount >= 0, location.dataOffset >= 0,
                location.dataOffset <= location.fileByteCount,
                byteCount <= location.fileByteCount - location.dataOffset
            else { throw .changed }
            file = try FileMapping(
                location.path, inode: location.inode, byteCount: location.fileByteCount)
        } catch {
            switch error {
            case .call(let call, let number):
                throw PullError(
                    .system, "cannot map \(location.path): \(call) failed with errno \(number)")
            case .changed:
                throw PullError(
                    .system,
                    "\(location.path) is another file by now; register the checkpoint again")
            }
        }
        dataOffset = location.dataOffset
        self.byteCount = byteCount
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
            UnsafeRawBufferPointer(start: file.address + dataOffset + offset, count: count))
    }
}
