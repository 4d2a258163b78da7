import Glibc

/// What a call of the system lacked, by its error number. The only place that decides it: what a machine lacks is
/// not the fault of a checkpoint.
public enum SystemFault: Sendable, Hashable {
    /// Memory, or room in a file system.
    case memory
    /// Descriptors.
    case descriptors
    /// The right to do it.
    case permission
    /// There is no such file or directory, or the path cannot be one.
    case path
    /// Anything else: a device or file system that fails.
    case device

    public init(_ number: CInt) {
        self =
            switch number {
            case ENOMEM, ENOSPC, EDQUOT: .memory
            case EMFILE, ENFILE: .descriptors
            case EACCES, EPERM, EROFS: .permission
            case ENOENT, ENOTDIR, EISDIR, ELOOP, ENAMETOOLONG: .path
            default: .device
            }
    }

    /// What can be done about it.
    public var remedy: String {
        switch self {
        case .memory: "free memory, or give the file system more room"
        case .descriptors: "raise the limit of open files (ulimit -n)"
        case .permission: "let the user of this process read it"
        case .path: "check the path"
        case .device: "check the file system and its device"
        }
    }
}
