import Glibc

/// A file of results, written whole or not at all.
enum OutputFile {
    /// Puts the bytes at `path` with mode 0600: through a new file beside it that then takes its
    /// name, so that no reader ever sees a part.
    static func write(_ bytes: [UInt8], to path: String) throws {
        let draft = "\(path).\(getpid()).tmp"
        // SAFETY: the bridged string lives for the call.
        _ = unsafe unlink(draft)
        let mode = mode_t(S_IRUSR | S_IWUSR)
        let descriptor = unsafe creat(draft, mode)
        guard descriptor >= 0 else { throw failure("create", draft) }
        do {
            defer { close(descriptor) }
            try write(bytes, to: descriptor, path: draft)
            guard fsync(descriptor) == 0 else { throw failure("write", draft) }
            // SAFETY: the bridged strings live for the call.
            guard unsafe rename(draft, path) == 0 else { throw failure("replace", path) }
        } catch {
            // SAFETY: the bridged string lives for the call.
            _ = unsafe unlink(draft)
            throw error
        }
    }

    private static func write(_ bytes: [UInt8], to descriptor: CInt, path: String) throws {
        var rest = bytes[...]
        while !rest.isEmpty {
            // SAFETY: the length passed is that of the buffer, which lives for the call.
            let count = unsafe rest.withUnsafeBytes { buffer in
                unsafe Glibc.write(descriptor, buffer.baseAddress, buffer.count)
            }
            if count > 0 {
                rest = rest.dropFirst(count)
            } else if errno != EINTR {
                throw failure("write", path)
            }
        }
    }

    private static func failure(_ verb: String, _ path: String) -> CommandError {
        CommandError("cannot \(verb) \(path): \(SystemText.of(errno))")
    }
}
