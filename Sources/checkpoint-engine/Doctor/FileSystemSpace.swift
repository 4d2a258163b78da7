import Glibc

/// The size of a file system.
enum FileSystemSpace {
    /// Bytes that this user can still take, and bytes in all; `nil` where they cannot be read.
    static func of(_ path: String) -> (free: Int, total: Int)? {
        var space = statvfs()
        // SAFETY: the bridged string and `space` live for the call.
        guard unsafe statvfs(path, &space) == 0 else { return nil }
        let unit = Int(clamping: space.f_frsize)
        return (
            Int(clamping: space.f_bavail).multipliedReportingOverflow(by: unit).partialValue,
            Int(clamping: space.f_blocks).multipliedReportingOverflow(by: unit).partialValue
        )
    }
}
