import CheckpointModel
import Glibc

/// Whether memory that is read into lacks pages. A file in shared memory gets its pages when they are written,
/// so that one that had room when it was made may have none by then; the writer cannot tell that from a peer's
/// fault.
enum MemoryShortage {
    /// Fewer free bytes than these are none: the file system needs some itself.
    private static let freeByteCountMin = 1 << 20

    /// The fault, if one of the files is not whole and its file system is full. `free` tells the bytes that are
    /// left there.
    static func found(
        in locations: [SegmentLocation], free: (String) -> Int? = freeByteCount
    ) -> PullError? {
        for location in locations {
            guard let held = heldByteCount(location.path), held < location.fileByteCount,
                let left = free(location.path), left < freeByteCountMin
            else { continue }
            return PullError(
                .insufficientMemory,
                "the file system of \(location.path) is full: \(held) of \(location.fileByteCount) bytes "
                    + "found room; mount a larger tmpfs, remove what others have put there, or "
                    + "unregister a checkpoint")
        }
        return nil
    }

    /// Bytes of the pages that a file has.
    private static func heldByteCount(_ path: String) -> Int? {
        var status = stat()
        // SAFETY: the bridged string and the result live for the call.
        guard unsafe stat(path, &status) == 0 else { return nil }
        return Int(status.st_blocks) * 512
    }

    private static func freeByteCount(_ path: String) -> Int? {
        var status = statvfs()
        // SAFETY: as above.
        guard unsafe statvfs(path, &status) == 0 else { return nil }
        let (count, overflow) = status.f_bavail.multipliedReportingOverflow(by: status.f_frsize)
        return overflow ? nil : Int(exactly: count)
    }
}
