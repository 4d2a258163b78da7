public import CheckpointModel
import CheckpointNative

/// The data section of one shard in shared memory, read piece by piece. The file may be another process's, which
/// may write to it or make it shorter at any time; nothing is mapped, and nothing stays open.
public struct StoredShard: Sendable {
    /// Bytes of a buffer that stays in a core's cache.
    static let bufferByteCount = 128 << 10

    private let location: SegmentLocation

    /// Checks that the file of `location` is there, and has a data section with room for `byteCount` bytes.
    public init(_ location: SegmentLocation, byteCount: Int) throws(PullError) {
        self.location = location
        guard byteCount >= 0, location.dataOffset >= 0,
            location.dataOffset <= location.fileByteCount,
            byteCount <= location.fileByteCount - location.dataOffset
        else { throw failure(.changed) }
        _ = try open()
    }

    /// The CRC-32C of each of `ranges` of the data section; `buffer` has ``bufferByteCount`` bytes. Throws where
    /// the file was replaced or has become shorter.
    func checksums(of ranges: [ByteRange], through buffer: inout [UInt8]) throws(PullError)
        -> [UInt32]
    {
        let file = try open()
        var values: [UInt32] = []
        for range in ranges {
            var value: UInt32 = 0
            var done = 0
            while done < range.byteCount {
                let count = min(buffer.count, range.byteCount - done)
                do throws(FileFailure) {
                    try file.read(
                        at: location.dataOffset + range.offset + done, count: count, into: &buffer)
                } catch {
                    throw failure(error)
                }
                // SAFETY: every bit of a byte has a meaning.
                let bytes = unsafe buffer.span.bytes.extracting(first: count)
                value = Checksum.crc32c(bytes, following: value)
                done += count
            }
            values.append(value)
        }
        return values
    }

    private func open() throws(PullError) -> OpenedFile {
        do throws(FileFailure) {
            return try OpenedFile(
                location.path, inode: location.inode, byteCount: location.fileByteCount)
        } catch {
            throw failure(error)
        }
    }

    private func failure(_ failure: FileFailure) -> PullError {
        switch failure {
        case .call(let call, let number):
            PullError(
                .system, "cannot read \(location.path): \(call) failed with errno \(number)")
        case .changed:
            PullError(
                .changed,
                "\(location.path) is no longer the file of \(location.fileByteCount) bytes that was "
                    + "registered; register the checkpoint again, and write the next version beside "
                    + "the files that are registered, not over them")
        }
    }
}
