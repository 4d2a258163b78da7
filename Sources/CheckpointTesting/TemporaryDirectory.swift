import CheckpointDevice
import FoundationEssentials
import Glibc

/// A directory that goes with its owner.
public final class TemporaryDirectory: Sendable {
    public let path: String

    /// Makes a directory in `parent`; `/dev/shm` for files in shared memory.
    public init(in parent: String = "/tmp") throws {
        path = "\(parent)/checkpoint-engine-test-\(getpid())-\(UInt64.random(in: 0 ... .max))"
        try FileManager.default.createDirectory(
            atPath: path, withIntermediateDirectories: false)
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    /// Writes a file and returns its path.
    @discardableResult
    public func write(_ bytes: [UInt8], to name: String) throws -> String {
        let file = "\(path)/\(name)"
        try Data(bytes).write(to: URL(filePath: file))
        return file
    }

    /// The names in the directory, sorted.
    public var names: [String] { Self.names(in: path) }

    /// Those of private directories of processes.
    public var privateNames: [String] {
        names.filter { name in PoolNames.all.contains { name.hasPrefix("\($0)-\(getuid())-") } }
    }

    /// The names in any directory, sorted; none where it cannot be read.
    public static func names(in path: String) -> [String] {
        ((try? FileManager.default.contentsOfDirectory(atPath: path)) ?? []).sorted()
    }

    /// The bytes of a file.
    public static func read(_ path: String) throws -> [UInt8] {
        Array(try Data(contentsOf: URL(filePath: path)))
    }
}
