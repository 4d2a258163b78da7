import ArgumentParser
import CheckpointNative
import FoundationEssentials
import Glibc

/// Processes that `torchrun` has started on one host: the one of local rank 0 does the work, and the others
/// wait for it and end with its exit code.
///
/// Rank 0 holds a lock on a file while it lives, and writes its exit code there in the end. The kernel
/// drops the lock however it ends, so that nobody waits for a process that is gone.
struct TorchrunSiblings {
    /// How long local rank 0 may take to begin while its process lives, and how long there may be none.
    private static let startSecondsMax = 60
    private static let missingSecondsMax = 5
    private static let pollInterval = Duration.milliseconds(20)
    private static let lookInterval = Duration.seconds(1)

    private static let directory = "/tmp"
    private static var prefix: String { "checkpoint-engine-\(getuid())-torchrun-" }

    let place: TorchrunPlace
    let variables: Variables

    /// Runs `work` at local rank 0, else waits for it. Throws its exit code.
    func run(_ work: () async throws -> Void) async throws {
        guard place.localRank == 0 else { throw ExitCode(try await waitForFirst()) }
        let descriptor = try lock()
        // The lock goes with the descriptor, after the code is written.
        defer { close(descriptor) }
        do {
            try await work()
            try Self.write(0, to: descriptor)
        } catch {
            try? Self.write(CommandError.exitCode(error), to: descriptor)
            throw error
        }
    }

    /// The file of this run; the id of the process that started them all makes it new.
    private var path: String {
        "\(Self.directory)/\(Self.prefix)\(launcher.id)-\(place.masterPort)-\(place.restartCount)"
    }

    /// The nearest process above this one that does not have its place.
    private var launcher: OtherProcess {
        var process = OtherProcess.parent
        while TorchrunPlace.isShared(variables, process.variables), let parent = process.parent {
            process = parent
        }
        return process
    }
}

// MARK: - Local rank 0

extension TorchrunSiblings {
    /// Makes the file, which is locked when it gets its name.
    private func lock() throws -> CInt {
        Self.sweep()
        let path = path
        let draft = "\(path).\(getpid())"
        // SAFETY: the bridged strings live for the calls.
        _ = unsafe unlink(draft)
        let flags = O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC
        let descriptor = unsafe open(draft, flags, mode_t(S_IRUSR | S_IWUSR))
        guard descriptor >= 0, flock(descriptor, LOCK_EX) == 0, unsafe rename(draft, path) == 0
        else {
            throw CommandError("cannot make \(path): \(SystemText.of(errno))")
        }
        return descriptor
    }

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

    private static func write(_ code: CInt, to descriptor: CInt) throws {
        try FileWriter.write(Array("\(code)\n".utf8), to: descriptor, named: "the file of this run")
    }
}

// MARK: - The others

extension TorchrunSiblings {
    /// The exit code of local rank 0. Throws when it does not begin, or ends without telling how.
    private func waitForFirst() async throws -> CInt {
        let path = path
        let start = ContinuousClock.now
        var nextLook = start + Self.lookInterval
        while true {
            let now = ContinuousClock.now
            let looks = now >= nextLook
            // Before the file: a process that has ended since has left one.
            let first = looks ? first : nil
            if let descriptor = try Self.openFile(path) {
                defer { close(descriptor) }
                return try Self.code(of: descriptor)
            }
            if looks {
                nextLook = now + Self.lookInterval
                try check(first, waited: start.duration(to: now))
            }
            try await Task.sleep(for: Self.pollInterval)
        }
    }

    /// The process of local rank 0, whatever it runs.
    private var first: OtherProcess? {
        OtherProcess.all.first { TorchrunPlace.isFirst($0.variables, beside: variables) }
    }

    private func check(_ first: OtherProcess?, waited: Duration) throws {
        let remedy =
            "every rank of the host has to run this command; '--no-torchrun' is for one that does not "
            + "belong to the others"
        guard first != nil || waited < .seconds(Self.missingSecondsMax) else {
            throw CommandError(
                "local rank \(place.localRank) waits for local rank 0, which does the work for this "
                    + "host, and this host has no process of it: \(remedy)")
        }
        guard waited < .seconds(Self.startSecondsMax) else {
            throw CommandError(
                "local rank 0, \(first.map { "\($0)" } ?? "which is gone"), has not begun to update "
                    + "within \(Self.startSecondsMax) s: \(remedy)")
        }
    }

    /// The file of local rank 0; `nil` as long as there is none.
    private static func openFile(_ path: String) throws -> CInt? {
        // SAFETY: the bridged string lives for the call.
        let descriptor = unsafe open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        var status = stat()
        // SAFETY: `status` outlives the call.
        guard unsafe fstat(descriptor, &status) == 0, status.st_uid == getuid() else {
            close(descriptor)
            throw CommandError("\(path) belongs to another user: remove it")
        }
        return descriptor
    }

    private static func code(of descriptor: CInt) throws -> CInt {
        while flock(descriptor, LOCK_SH) != 0 {
            guard errno == EINTR else {
                throw CommandError("cannot wait for local rank 0: \(SystemText.of(errno))")
            }
        }
        var bytes = [UInt8](repeating: 0, count: 16)
        // SAFETY: the length is that of `bytes`.
        let count = unsafe pread(descriptor, &bytes, bytes.count, 0)
        let text = String(decoding: bytes.prefix(max(0, count)), as: UTF8.self)
        guard let code = CInt(text.filter { !$0.isWhitespace }) else {
            throw CommandError(
                "local rank 0, which did the work for this host, has ended without telling how: it "
                    + "was killed or has crashed")
        }
        if code != 0 {
            Terminal.standardError.write(
                "error: local rank 0, which did the work for this host, has ended with exit code "
                    + "\(code); it has told why\n")
        }
        return code
    }
}
