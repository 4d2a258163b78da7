import Glibc

/// The ceiling of a delivery on the host: one `memcpy` between two mapped files, both touched before.
public enum PlainCopy {
    /// Copies `byteCount` bytes a second time after a first, unmeasured one, and returns the seconds of the
    /// second. Makes the two files `scratchPath` and `scratchPath.target`, and removes them.
    public static func seconds(byteCount: Int, scratchPath: String) throws(WorkerError) -> Double {
        let source = try MappedFile(creating: scratchPath, byteCount: byteCount)
        let targetPath = scratchPath + ".target"
        let target = try MappedFile(creating: targetPath, byteCount: byteCount)

        defer {
            // SAFETY: the bridged strings live for the calls.
            _ = unsafe unlink(scratchPath)
            _ = unsafe unlink(targetPath)
        }
        // SAFETY: both mappings have `byteCount` bytes.
        unsafe memset(source.address, 0x5a, byteCount)
        unsafe memcpy(target.address, source.address, byteCount)
        let start = ContinuousClock.now
        unsafe memcpy(target.address, source.address, byteCount)
        return Double(WorkerLink.microseconds(start.duration(to: .now))) / 1e6
    }
}
