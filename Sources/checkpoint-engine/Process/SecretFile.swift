import Glibc

/// A small file with a secret, a token or a key, that nobody but its owner may read.
enum SecretFile {
    /// The contents of `path`; `what` names the file in messages.
    ///
    /// - Throws: ``CommandError`` when it cannot be read, has more than `byteCountMax` bytes, belongs
    ///   to neither this user nor root, or is open to others.
    static func read(_ path: String, _ what: String, byteCountMax: Int) throws -> [UInt8] {
        // SAFETY: the bridged string lives for the call.
        let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw unreadable(path, what) }
        defer { close(descriptor) }
        var status = stat()
        // SAFETY: `status` lives for the call.
        guard unsafe fstat(descriptor, &status) == 0 else { throw unreadable(path, what) }
        guard status.st_uid == geteuid() || status.st_uid == 0 else {
            throw CommandError(
                "\(what) \(path) belongs to another user (\(status.st_uid)), who can change it: copy it "
                    + "to a file of this user (\(geteuid())) or of root", code: .usage)
        }
        guard status.st_mode & 0o077 == 0 else {
            let mode = String(status.st_mode & 0o7777, radix: 8)
            throw CommandError(
                "\(what) \(path) has the mode \(mode), so that others can read or change it: "
                    + "chmod 600 \(path), and make a new secret if others may have seen it",
                code: .usage)
        }
        var bytes = [UInt8](repeating: 0, count: byteCountMax + 1)
        var count = 0
        while count < bytes.count {
            // SAFETY: the slice lies in the array, which lives for the call.
            let got = unsafe bytes.withUnsafeMutableBytes { buffer in
                unsafe Glibc.read(
                    descriptor, buffer.baseAddress?.advanced(by: count), buffer.count - count)
            }
            if got < 0, errno == EINTR { continue }
            guard got >= 0 else { throw unreadable(path, what) }
            if got == 0 { break }
            count += got
        }
        guard count <= byteCountMax else {
            throw CommandError("\(what) \(path) has more than \(byteCountMax) bytes", code: .usage)
        }
        return Array(bytes[..<count])
    }

    private static func unreadable(_ path: String, _ what: String) -> CommandError {
        CommandError("\(what) \(path) cannot be read: \(SystemText.of(errno))", code: .usage)
    }
}
