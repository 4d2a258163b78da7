import CNative
import Glibc

/// What tells whether a path still names the same file with the same contents.
struct FileIdentity: Hashable, Sendable {
    let device: UInt64
    let inode: UInt64
    let byteCount: Int
    let modifiedSeconds: Int
    let modifiedNanoseconds: Int
    /// When contents or attributes changed, which no program can set back.
    let changedSeconds: Int
    let changedNanoseconds: Int

    /// Of the file that the path names now, links followed; `nil` when there is none.
    init?(path: String) {
        var status = stat()
        // SAFETY: the bridged string and `status` live for the call.
        guard unsafe stat(path, &status) == 0 else { return nil }
        self.init(status)
    }

    init(_ status: stat) {
        device = UInt64(status.st_dev)
        inode = UInt64(status.st_ino)
        byteCount = Int(status.st_size)
        modifiedSeconds = status.st_mtim.tv_sec
        modifiedNanoseconds = status.st_mtim.tv_nsec
        changedSeconds = status.st_ctim.tv_sec
        changedNanoseconds = status.st_ctim.tv_nsec
    }

    /// The text of an error number.
    static func text(_ number: CInt) -> String {
        // SAFETY: the C library returns a constant string or nil.
        guard let text = unsafe ce_error_text(number) else { return "errno \(number)" }
        return unsafe String(cString: text) + ", errno \(number)"
    }
}
