import CheckpointModel
import CheckpointNative

/// The data section of one shard in this host's own memory, mapped for reading: a file of the pool, which nobody
/// else makes shorter. Its bytes change underneath while agents write to it: that is what checksums are for.
@safe
final class MappedShard: Sendable {
    /// Bytes of the data section.
    let byteCount: Int
    private let dataOffset: Int
    private let file: FileMapping

    /// Maps the file of `location`, whose data section has to have room for `byteCount` bytes.
    init(_ location: SegmentLocation, byteCount: Int) throws(PullError) {
        do throws(FileFailure) {
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
