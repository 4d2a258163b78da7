import Glibc

/// The file of the unix socket that the daemon listens on.
public struct UnixSocketFile: Sendable {
    /// What fits into a socket address, without the terminating zero.
    public static let pathByteCountMax = 107

    let path: String

    /// What a path turned out to be.
    private enum Occupant {
        case nothing
        /// A socket that nobody listens on.
        case staleSocket
        case listener
        case otherFile
    }

    /// The identity of a file, also after another took its name.
    struct Identity: Hashable, Sendable {
        let device: UInt
        let inode: UInt
    }

    /// Checks that the path can be listened on: nothing is there, or the socket of a daemon that
    /// was killed. The server replaces the latter.
    func checkFree() throws(ControlError) {
        let count = path.utf8.count
        guard (1...Self.pathByteCountMax).contains(count), !path.utf8.contains(0) else {
            throw ControlError(
                .listenFailed,
                "the socket path \(path) has \(count) bytes: expected 1 to "
                    + "\(Self.pathByteCountMax), choose a shorter one")
        }
        switch occupant() {
        case .nothing, .staleSocket: return
        case .listener:
            throw ControlError(
                .listenFailed,
                "a process listens on \(path) already: stop it, or choose another path")
        case .otherFile:
            throw ControlError(
                .listenFailed,
                "\(path) exists and is no socket: remove it, or choose another path")
        }
    }

    /// Takes away the permissions of all other users, and tells which file it is.
    func protect() throws(ControlError) -> Identity {
        // SAFETY: the bridged string lives for the call.
        guard unsafe chmod(path, 0o600) == 0, let identity = identity() else {
            throw ControlError(
                .listenFailed, "cannot set the permissions of \(path) (errno \(errno))")
        }
        return identity
    }

    /// Whether it is a socket of the user that this process runs as. A link to one is none.
    var isOfThisUser: Bool {
        guard !path.utf8.contains(0), let status = status() else { return false }
        return status.st_mode & S_IFMT == S_IFSOCK && status.st_uid == geteuid()
    }

    /// Whether the path names anything.
    var isThere: Bool { !path.utf8.contains(0) && status() != nil }

    /// Removes the file if it is still the one that this daemon made.
    func remove(_ identity: Identity) {
        guard self.identity() == identity else { return }
        // SAFETY: the bridged string lives for the call.
        _ = unsafe unlink(path)
    }

    private func identity() -> Identity? {
        status().map { Identity(device: UInt($0.st_dev), inode: UInt($0.st_ino)) }
    }

    private func status() -> stat? {
        var status = stat()
        // SAFETY: the bridged string and `status` live for the call.
        return unsafe lstat(path, &status) == 0 ? status : nil
    }

    private func occupant() -> Occupant {
        guard let status = status() else { return .nothing }
        guard status.st_mode & S_IFMT == S_IFSOCK else { return .otherFile }
        let flags = SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue
        let descriptor = socket(AF_UNIX, CInt(SOCK_STREAM.rawValue | flags), 0)
        guard descriptor >= 0 else { return .listener }
        defer { close(descriptor) }
        // Only a refusal proves that nobody listens: a full queue or a socket of another kind has
        // an owner too.
        return connects(descriptor) || errno != ECONNREFUSED ? .listener : .staleSocket
    }

    private func connects(_ descriptor: CInt) -> Bool {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        // SAFETY: the path was checked to be shorter than `sun_path`, which starts out as zeros.
        unsafe withUnsafeMutableBytes(of: &address.sun_path) { bytes in
            unsafe bytes.copyBytes(from: path.utf8)
        }
        // SAFETY: a socket address of this family may be read as the general one; it lives for
        // the call, which gets its true size.
        return unsafe withUnsafePointer(to: &address) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                unsafe connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size)) == 0
            }
        }
    }
}
