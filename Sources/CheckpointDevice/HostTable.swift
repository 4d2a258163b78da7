import CNative
public import Glibc

/// The system calls that shared memory is made of, as one table of C functions: the seam at which
/// tests count what is open and make a chosen call fail.
///
/// ``system`` is the production table. `host` is not a stand-in for GPUs: it is how engines on the CPU are updated.
@safe
public struct HostTable: Sendable {
    public typealias Open = @convention(c) (UnsafePointer<CChar>?, CInt, CUnsignedInt) -> CInt
    public typealias Close = @convention(c) (CInt) -> CInt
    public typealias Truncate = @convention(c) (CInt, off_t) -> CInt
    public typealias Lock = @convention(c) (CInt, CInt) -> CInt
    public typealias MakeDirectory = @convention(c) (UnsafePointer<CChar>?, mode_t) -> CInt
    public typealias Remove = @convention(c) (UnsafePointer<CChar>?) -> CInt
    public typealias FileStatus = @convention(c) (CInt, UnsafeMutablePointer<stat>?) -> CInt
    public typealias SpaceStatus =
        @convention(c) (UnsafePointer<CChar>?, UnsafeMutablePointer<statvfs>?) -> CInt

    public var open: Open
    public var close: Close
    public var truncate: Truncate
    public var lock: Lock
    public var makeDirectory: MakeDirectory
    public var unlink: Remove
    public var removeDirectory: Remove
    public var status: FileStatus
    public var space: SpaceStatus

    public init(
        open: @escaping Open, close: @escaping Close, truncate: @escaping Truncate,
        lock: @escaping Lock, makeDirectory: @escaping MakeDirectory, unlink: @escaping Remove,
        removeDirectory: @escaping Remove, status: @escaping FileStatus,
        space: @escaping SpaceStatus
    ) {
        unsafe self.open = open
        self.close = close
        self.truncate = truncate
        self.lock = lock
        unsafe self.makeDirectory = makeDirectory
        unsafe self.unlink = unlink
        unsafe self.removeDirectory = removeDirectory
        unsafe self.status = status
        unsafe self.space = space
    }

    /// The C library's functions.
    public static let system = unsafe HostTable(
        open: { path, flags, mode in unsafe ce_open(path, flags, mode) },
        close: { descriptor in Glibc.close(descriptor) },
        truncate: { descriptor, length in ftruncate(descriptor, length) },
        lock: { descriptor, operation in flock(descriptor, operation) },
        makeDirectory: { path, mode in unsafe path.map { unsafe mkdir($0, mode) } ?? -1 },
        unlink: { path in unsafe path.map { unsafe Glibc.unlink($0) } ?? -1 },
        removeDirectory: { path in unsafe path.map { unsafe rmdir($0) } ?? -1 },
        status: { descriptor, result in unsafe result.map { unsafe fstat(descriptor, $0) } ?? -1 },
        space: { path, result in
            guard let path = unsafe path, let result = unsafe result else { return -1 }
            return unsafe statvfs(path, result)
        })
}
