import Glibc

/// A directory of mode 0700 that belongs to one running process, and goes when the process goes.
///
/// The owner holds a lock on it. A process that starts removes the directories of its user that
/// nobody has locked: those of processes that were killed.
///
public final class PrivateDirectory: Sendable {
    public let path: String
    let table: HostTable
    let descriptor: CInt

    /// Makes `PARENT/PREFIX-UID-PID-RANDOM`, after sweeping what dead owners left in `parent`.
    public init(parent: String, prefix: String, table: HostTable = .system) throws(DeviceError) {
        Self.sweep(parent: parent, prefix: prefix, table: table)
        for _ in 0..<16 {
            let suffix = String(UInt32.random(in: 0...UInt32.max), radix: 16)
            let path = "\(parent)/\(prefix)-\(getuid())-\(getpid())-\(suffix)"
            guard try table.makePrivateDirectory(path) else { continue }
            // Between the two calls another process may take it for a dead one's and remove it:
            // then open or lock fails and the next name is tried.
            guard
                let descriptor = try? table.openFile(path, flags: O_RDONLY | O_DIRECTORY),
                (try? table.tryLock(descriptor, path: path)) == true
            else { continue }
            self.path = path
            self.descriptor = descriptor
            self.table = table
            return
        }
        throw DeviceError(.unusablePath, "cannot make a private directory in \(parent)")
    }

    deinit {
        remove()
        _ = table.close(descriptor)
    }

    /// Removes the directory with all files in it.
    public func remove() {
        Self.removeTree(path, table: table)
    }

    /// The directories in `parent` that nobody has locked any more.
    public static func leftovers(
        parent: String, prefix: String, table: HostTable = .system
    ) -> [String] {
        let start = "\(prefix)-\(getuid())-"
        return DirectoryListing.names(in: parent).filter { $0.hasPrefix(start) }.sorted()
            .compactMap { name in
                let path = "\(parent)/\(name)"
                guard
                    let descriptor = try? table.openFile(
                        path, flags: O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
                else { return nil }
                defer { _ = table.close(descriptor) }
                guard let status = try? table.fileStatus(descriptor, path: path),
                    status.st_uid == getuid(),
                    (try? table.tryLock(descriptor, path: path)) == true
                else { return nil }
                return path
            }
    }

    /// Removes the directories of dead owners.
    static func sweep(parent: String, prefix: String, table: HostTable) {
        for path in leftovers(parent: parent, prefix: prefix, table: table) {
            removeTree(path, table: table)
        }
    }

    private static func removeTree(_ path: String, table: HostTable) {
        for name in DirectoryListing.names(in: path) {
            try? table.removeFile("\(path)/\(name)")
        }
        // SAFETY: the bridged string lives for the call.
        _ = unsafe path.withCString { unsafe table.removeDirectory($0) }
    }
}
