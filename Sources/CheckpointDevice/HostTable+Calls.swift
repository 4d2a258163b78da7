import CheckpointNative
import Glibc

/// The checked layer: each call retries after a signal and throws with the function's name, the
/// path and the raw error number.
extension HostTable {
    func openFile(_ path: String, flags: CInt, mode: CUnsignedInt = 0) throws(DeviceError) -> CInt {
        while true {
            // SAFETY: the bridged string lives for the call.
            let descriptor = unsafe path.withCString { unsafe open($0, flags | O_CLOEXEC, mode) }
            if descriptor >= 0 { return descriptor }
            let number = errno
            if number == EINTR { continue }
            throw DeviceError(
                SystemFault(number) == .memory ? .insufficientMemory : .systemCall,
                "cannot open \(path)", call: "open", errorNumber: number)
        }
    }

    func setLength(_ descriptor: CInt, to byteCount: Int, path: String) throws(DeviceError) {
        while truncate(descriptor, off_t(byteCount)) != 0 {
            let number = errno
            if number == EINTR { continue }
            throw DeviceError(
                SystemFault(number) == .memory ? .insufficientMemory : .systemCall,
                "cannot give \(path) a length of \(byteCount) bytes", call: "ftruncate",
                errorNumber: number)
        }
    }

    /// Takes an exclusive lock without waiting; `false` when another process has it.
    func tryLock(_ descriptor: CInt, path: String) throws(DeviceError) -> Bool {
        while lock(descriptor, LOCK_EX | LOCK_NB) != 0 {
            let number = errno
            if number == EINTR { continue }
            if number == EWOULDBLOCK { return false }
            throw DeviceError(
                .systemCall, "cannot lock \(path)", call: "flock", errorNumber: number)
        }
        return true
    }

    /// Makes a directory of mode 0700; `false` when the path is taken.
    func makePrivateDirectory(_ path: String) throws(DeviceError) -> Bool {
        // SAFETY: the bridged string lives for the call.
        if unsafe path.withCString({ unsafe makeDirectory($0, 0o700) }) == 0 { return true }
        let number = errno
        if number == EEXIST { return false }
        throw DeviceError(
            .unusablePath, "cannot make the directory \(path)", call: "mkdir", errorNumber: number)
    }

    /// Removes a file; one that is gone already is no failure.
    func removeFile(_ path: String) throws(DeviceError) {
        // SAFETY: the bridged string lives for the call.
        if unsafe path.withCString({ unsafe unlink($0) }) == 0 || errno == ENOENT { return }
        throw DeviceError(
            .systemCall, "cannot remove \(path)", call: "unlink", errorNumber: errno)
    }

    func fileStatus(_ descriptor: CInt, path: String) throws(DeviceError) -> stat {
        var result = stat()
        // SAFETY: `result` outlives the call.
        if unsafe status(descriptor, &result) == 0 { return result }
        throw DeviceError(
            .systemCall, "cannot read the status of \(path)", call: "fstat", errorNumber: errno)
    }

    /// Bytes that an unprivileged process can still write in the file system of `path`.
    func freeByteCount(at path: String) throws(DeviceError) -> Int {
        var result = statvfs()
        // SAFETY: the bridged string and `result` live for the call.
        let code = unsafe path.withCString { path in
            unsafe withUnsafeMutablePointer(to: &result) { unsafe space(path, $0) }
        }
        guard code == 0 else {
            throw DeviceError(
                .unusablePath, "cannot read the free space of \(path)", call: "statvfs",
                errorNumber: errno)
        }
        let (bytes, overflow) = result.f_bavail.multipliedReportingOverflow(
            by: UInt(result.f_frsize))
        return overflow ? Int.max : Int(clamping: bytes)
    }
}
