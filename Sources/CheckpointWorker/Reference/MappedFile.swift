import CheckpointModel
import CheckpointNative
import Glibc

/// A mapped file: a segment to read from, or memory to write to, by a reference worker on one thread.
@safe
public final class MappedFile: Sendable {
    private let file: FileMapping

    var address: UnsafeMutableRawPointer { unsafe file.address }
    public var byteCount: Int { file.byteCount }

    /// Maps an existing file for reading. `inode` and `byteCount` must be those of the file.
    public init(reading path: String, inode: UInt64?, byteCount: Int?) throws(WorkerError) {
        do throws(FileFailure) {
            file = try FileMapping(path, inode: inode, byteCount: byteCount)
        } catch {
            throw Self.failure(error, path)
        }
    }

    /// Makes a file of `byteCount` bytes and maps it for reading and writing.
    public init(creating path: String, byteCount: Int) throws(WorkerError) {
        do throws(FileFailure) {
            file = try FileMapping(creating: path, byteCount: byteCount)
        } catch {
            throw Self.failure(error, path)
        }
    }

    private static func failure(_ failure: FileFailure, _ path: String) -> WorkerError {
        switch failure {
        case .call(let call, let number):
            WorkerError(.callFailed, "cannot map \(path): \(call) failed with errno \(number)")
        case .changed:
            WorkerError(.protocolViolation, "\(path) is not the file that the catalog describes")
        }
    }

    /// The mapped bytes, for as long as the call lasts.
    public func withBytes<Result>(_ body: (Span<UInt8>) -> Result) -> Result {
        let buffer = unsafe UnsafeBufferPointer(
            start: address.assumingMemoryBound(to: UInt8.self), count: byteCount)
        return unsafe body(buffer.span)
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
