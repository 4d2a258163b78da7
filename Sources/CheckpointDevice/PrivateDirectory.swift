import CheckpointModel
import CheckpointNative
import Glibc

/// A directory of mode 0700 that belongs to one running process, and goes when the process goes.
///
/// The owner holds a lock on it. A process that starts removes the directories of its user that
/// nobody has locked: those of processes that were killed.
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
            guard try table.makePrivateDirectory(path),
                let descriptor = try Self.own(path, table: table)
            else { continue }
            self.path = path
            self.descriptor = descriptor
            self.table = table
            return
        }
        throw DeviceError(.unusablePath, "cannot make a private directory in \(parent)")
    }

    /// The longest name that this user's directories of that prefix can have.
    public static func nameLongest(prefix: String) -> String {
        "\(prefix)-\(getuid())-\(processIDMax)-\(String(UInt32.max, radix: 16))"
    }

    /// The largest that Linux gives, `PID_MAX_LIMIT`.
    private static let processIDMax = 1 << 22

    /// Locks a directory that was just made. `nil` when a sweep took it for a dead owner's before
    /// that; a directory that cannot be locked is removed.
    private static func own(_ path: String, table: HostTable) throws(DeviceError) -> CInt? {
        let descriptor: CInt
        do {
            descriptor = try table.openFile(path, flags: O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
        } catch {
            if error.errorNumber == ENOENT { return nil }
            removeTree(path, table: table)
            throw error
        }
        do {
            // A sweep removes under the lock: one that came first has left no link to the directory.
            if try table.tryLock(descriptor, path: path),
                try table.fileStatus(descriptor, path: path).st_nlink > 0
            {
                return descriptor
            }
        } catch {
            removeTree(path, table: table)
            _ = table.close(descriptor)
            throw error
        }
        _ = table.close(descriptor)
        return nil
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
        var paths: [String] = []
        forEachLeftover(parent: parent, prefix: prefix, table: table) { paths.append($0) }
        return paths
    }

    /// Removes the directories of dead owners.
    static func sweep(parent: String, prefix: String, table: HostTable) {
        forEachLeftover(parent: parent, prefix: prefix, table: table) { path in
            removeTree(path, table: table)
        }
    }

    /// Calls `body` for each directory of this user that nobody has locked, with its lock held.
    private static func forEachLeftover(
        parent: String, prefix: String, table: HostTable, _ body: (String) -> Void
    ) {
        let start = "\(prefix)-\(getuid())-"
        for name in Self.names(in: parent).sorted() where name.startsExactly(with: start) {
            let path = "\(parent)/\(name)"
            guard
                let descriptor = try? table.openFile(
                    path, flags: O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
            else { continue }
            defer { _ = table.close(descriptor) }
            guard let status = try? table.fileStatus(descriptor, path: path),
                status.st_uid == getuid(), status.st_nlink > 0,
                (try? table.tryLock(descriptor, path: path)) == true
            else { continue }
            body(path)
        }
    }

    /// What cannot be listed is left for whoever sweeps next.
    private static func names(in path: String) -> [String] {
        (try? DirectoryListing.names(in: path)) ?? []
    }

    private static func removeTree(_ path: String, table: HostTable) {
        for name in names(in: path) {
            try? table.removeFile("\(path)/\(name)")
        }
        // SAFETY: the bridged string lives for the call.
        _ = unsafe path.withCString { unsafe table.removeDirectory($0) }
    }
}
