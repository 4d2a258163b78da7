import ArgumentParser
import CheckpointNative
import FoundationEssentials
import Glibc

/// Processes that `torchrun` has started on one host: the one of local rank 0 does the work, and the others
/// wait for it and end with its exit code.
///
/// Rank 0 holds a lock on a file while it lives, and writes its exit code there in the end. The kernel
/// drops the lock however it ends, so that nobody waits for a process that is gone.
enum TorchrunSiblings {
    private static let startSecondsMax = 60
    private static let pollMicroseconds: CUnsignedInt = 20_000

    /// The file of this run; the id of torchrun's own process makes it new.
    private static func path(_ place: TorchrunPlace) -> String {
        "\(directory)/\(prefix)\(getppid())-\(place.masterPort)"
    }

    private static let directory = "/tmp"
    private static var prefix: String { "checkpoint-engine-\(getuid())-torchrun-" }

    /// Removes the files of runs that are over.
    private static func sweep() {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? []
        for name in names where name.hasPrefix(prefix) {
            let rest = name.dropFirst(prefix.count).split(separator: "-")
            guard let id = rest.first.flatMap({ pid_t($0) }), ProcessLife.isGone(id) else {
                continue
            }
            // SAFETY: the bridged string lives for the call.
            _ = unsafe unlink("\(directory)/\(name)")
        }
    }

    /// Runs `work` at local rank 0, else waits for it. Throws its exit code.
    static func run(_ variables: Variables, _ work: () async throws -> Void) async throws {
        guard let place = TorchrunPlace(variables), place.localCount > 1 else {
            return try await work()
        }
        guard place.localRank == 0 else { throw ExitCode(waitForFirst(path(place))) }
        let descriptor = try lock(path(place))
        // The lock goes with the descriptor, after the code is written.
        defer { close(descriptor) }
        do {
            try await work()
            write(0, to: descriptor)
        } catch {
            write((error as? ExitCode)?.rawValue ?? 1, to: descriptor)
            throw error
        }
    }

    /// Makes the file, which is locked when it gets its name.
    private static func lock(_ path: String) throws -> CInt {
        sweep()
        let draft = path + ".new"
        // SAFETY: the bridged strings live for the calls.
        let descriptor = unsafe creat(draft, mode_t(S_IRUSR | S_IWUSR))
        guard descriptor >= 0, flock(descriptor, LOCK_EX) == 0, unsafe rename(draft, path) == 0
        else {
            throw CommandError("cannot make \(path): \(SystemText.of(errno))")
        }
        return descriptor
    }

    private static func write(_ code: CInt, to descriptor: CInt) {
        let text = Array("\(code)\n".utf8)
        // SAFETY: the length is that of the text.
        _ = unsafe Glibc.write(descriptor, text, text.count)
    }

    /// The exit code of local rank 0; 1 when it has ended without one.
    private static func waitForFirst(_ path: String) -> CInt {
        var tries = startSecondsMax * 1_000_000 / Int(pollMicroseconds)
        while tries > 0 {
            // SAFETY: the bridged string lives for the call.
            let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC)
            if descriptor >= 0 {
                defer { close(descriptor) }
                return code(of: descriptor)
            }
            tries -= 1
            usleep(pollMicroseconds)
        }
        return 1
    }

    private static func code(of descriptor: CInt) -> CInt {
        while flock(descriptor, LOCK_SH) != 0 {
            if errno != EINTR { return 1 }
        }
        var bytes = [UInt8](repeating: 0, count: 16)
        // SAFETY: the length is that of `bytes`.
        let count = unsafe pread(descriptor, &bytes, bytes.count, 0)
        let text = String(decoding: bytes.prefix(max(0, count)), as: UTF8.self)
        return CInt(text.filter { !$0.isWhitespace }) ?? 1
    }
}
