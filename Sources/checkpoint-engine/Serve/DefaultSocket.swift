import CheckpointControl
import Glibc

/// The unix socket of a daemon that nobody told where to listen: one for each user.
enum DefaultSocket {
    private static let name = "daemon.sock"

    /// Its path; makes the directory, of mode 0700, where it is not there.
    ///
    /// - Throws: ``CommandError`` when that place belongs to somebody else or is open to others.
    static func path(_ variables: Variables, runtimeDirectory: String) throws -> String {
        let directory = directory(variables, runtimeDirectory)
        // SAFETY: the bridged string lives for the call.
        guard unsafe mkdir(directory, 0o700) == 0 || errno == EEXIST else {
            throw CommandError(
                "cannot make \(directory) for the daemon's socket: \(SystemText.of(errno)). Name "
                    + "another place with '--uds PATH'")
        }
        var status = stat()
        // SAFETY: the bridged string and `status` live for the call.
        guard unsafe lstat(directory, &status) == 0, status.st_mode & S_IFMT == S_IFDIR,
            status.st_uid == geteuid(), status.st_mode & 0o077 == 0
        else {
            throw CommandError(
                "\(directory) is no directory that only this user (\(geteuid())) can reach: remove it, or "
                    + "name another place for the daemon's socket with '--uds PATH'")
        }
        return "\(directory)/\(name)"
    }

    private static func directory(_ variables: Variables, _ runtimeDirectory: String) -> String {
        if let own = variables.plain("XDG_RUNTIME_DIR"), own.hasPrefix("/") {
            return "\(own)/checkpoint-engine"
        }
        return "\(runtimeDirectory)/checkpoint-engine-\(geteuid())"
    }
}
