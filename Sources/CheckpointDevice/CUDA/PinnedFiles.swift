public import CheckpointModel
import Glibc
import Synchronization

/// The pinned files of a process: pinning is slow, so that a file stays pinned for the next checkpoint
/// that lies in it, until its path is gone or it is dropped.
public final class PinnedFiles: Sendable {
    private struct Key: Hashable {
        let path: String
        let inode: UInt64
        let byteCount: Int
    }

    private let context: CudaContext
    private let threadCount: Int
    private let files = Mutex<[Key: PinnedFile]>([:])

    /// Pins through `context`, for all GPUs, with `threadCount` threads at a time.
    public init(context: CudaContext, threadCount: Int) {
        self.context = context
        self.threadCount = threadCount
    }

    /// Bytes that are pinned now.
    public var byteCount: Int {
        files.withLock { $0.values.reduce(0) { $0 + $1.byteCount } }
    }

    /// The pinned files behind `locations`, in their order; pins those that are not.
    public func pin(_ locations: [SegmentLocation]) throws(DeviceError) -> [PinnedFile] {
        dropStale()
        return try locations.map { location throws(DeviceError) in
            let key = Key(
                path: location.path, inode: location.inode, byteCount: location.fileByteCount)
            if let file = files.withLock({ $0[key] }), file.isWhole { return file }
            let file = try PinnedFile(
                path: key.path, inode: key.inode, byteCount: key.byteCount, context: context,
                threadCount: threadCount)
            files.withLock { $0[key] = file }
            return file
        }
    }

    /// Unpins the files of these paths, unless a registered checkpoint holds them.
    public func drop(paths: [String]) {
        let paths = Set(paths)
        remove { paths.contains($0.path) }
    }

    /// Unpins the files whose paths are gone or name others.
    public func dropStale() { remove { !Self.isCurrent($0) } }

    /// Unpins every file that no registered checkpoint holds.
    public func dropAll() { remove { _ in true } }

    private func remove(where condition: (Key) -> Bool) {
        // What is removed is unpinned after the lock has gone.
        let removed = files.withLock { files in
            let removed = files.filter { condition($0.key) }
            for key in removed.keys { files[key] = nil }
            return removed
        }
        _ = removed
    }

    private static func isCurrent(_ key: Key) -> Bool {
        var status = stat()
        // SAFETY: the bridged string and `status` live for the call.
        return unsafe lstat(key.path, &status) == 0 && status.st_ino == key.inode
            && Int(status.st_size) == key.byteCount
    }
}
