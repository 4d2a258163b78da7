import ArgumentParser
import CheckpointTrace
import Glibc

/// A file of results: it is checked before there is anything to write, and then written whole or not at
/// all.
struct OutputFile: Sendable {
    private enum Kind {
        /// Made beside the file that it replaces, and then renamed.
        case replaced
        /// A pipe or a device, which keeps its place.
        case written
        /// What standard output or standard error goes to.
        case standard(CInt)
    }

    /// As it was given.
    let path: String
    /// Where its symbolic links lead.
    private let target: String
    private let kind: Kind

    /// Checks that the file of `flag` can be made and replaced, and changes nothing.
    init(_ path: String, flag: String) throws {
        self.path = path
        var status = stat()
        // SAFETY: the bridged string and `status` live for the call.
        let exists = unsafe stat(path, &status) == 0
        let type = status.st_mode & S_IFMT
        if exists, let descriptor = Self.standardDescriptor(status) {
            kind = .standard(descriptor)
            target = path
        } else if exists, type != S_IFREG {
            kind = .written
            target = path
        } else {
            kind = .replaced
            target = exists ? Self.resolved(path) : path
        }
        guard !exists || type != S_IFDIR else {
            throw Self.unusable(path, flag, "it is a directory: name a file in it")
        }
        // SAFETY: the bridged string lives for the call.
        if exists, unsafe access(path, W_OK) != 0 {
            throw Self.unusable(path, flag, SystemText.of(errno))
        }
        guard case .replaced = kind else { return }
        do throws(FileWriter.Failure) {
            close(try makeDraft())
        } catch {
            throw Self.unusable(path, flag, SystemText.of(error.errorNumber))
        }
        removeDraft()
    }

    /// Throws for two flags that name one file.
    static func checkDistinct(_ first: OutputFile?, _ second: OutputFile?) throws {
        guard let first, let second, case .replaced = first.kind, first.target == second.target
        else { return }
        throw ValidationError("\(first.path) is named by two flags: one would replace the other.")
    }

    /// Puts the bytes there; a new file has mode 0600. No reader ever sees a part of it, and where it fails
    /// what was there before stays.
    func write(_ bytes: [UInt8]) throws {
        do throws(FileWriter.Failure) {
            switch kind {
            case .replaced: try replace(bytes)
            case .written: try append(bytes)
            case .standard(let descriptor):
                try FileWriter.write(bytes, to: descriptor, named: path)
            }
        } catch {
            throw CommandError("cannot write \(path): \(SystemText.of(error.errorNumber))")
        }
    }
}

extension OutputFile {
    /// A picture if the name ends in `.svg`, else a Chrome trace.
    func write(_ timeline: Timeline) throws {
        try write(path.hasSuffix(".svg") ? timeline.svg() : timeline.chromeTrace())
    }

    private var draft: String { "\(target).\(getpid()).tmp" }

    private func replace(_ bytes: [UInt8]) throws(FileWriter.Failure) {
        let descriptor = try makeDraft()
        do throws(FileWriter.Failure) {
            defer { close(descriptor) }
            try FileWriter.write(bytes, to: descriptor, named: draft)
            guard fsync(descriptor) == 0 else { throw failure }
            // SAFETY: the bridged strings live for the call.
            guard unsafe rename(draft, target) == 0 else { throw failure }
        } catch {
            removeDraft()
            throw error
        }
    }

    private func append(_ bytes: [UInt8]) throws(FileWriter.Failure) {
        // A pipe that nobody reads is an error, not something to wait for.
        let flags = O_WRONLY | O_APPEND | O_NONBLOCK | O_CLOEXEC
        // SAFETY: the bridged string lives for the call.
        let descriptor = unsafe open(target, flags)
        guard descriptor >= 0, fcntl(descriptor, F_SETFL, O_APPEND) == 0 else { throw failure }
        do throws(FileWriter.Failure) {
            try FileWriter.write(bytes, to: descriptor, named: path)
        } catch {
            close(descriptor)
            throw error
        }
        guard close(descriptor) == 0 else { throw failure }
    }

    private func makeDraft() throws(FileWriter.Failure) -> CInt {
        removeDraft()
        let flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC
        // SAFETY: the bridged string lives for the call.
        let descriptor = unsafe open(draft, flags, mode_t(S_IRUSR | S_IWUSR))
        guard descriptor >= 0 else { throw failure }
        return descriptor
    }

    private func removeDraft() {
        // SAFETY: the bridged string lives for the call.
        _ = unsafe unlink(draft)
    }

    /// What the last call of this thread has left.
    private var failure: FileWriter.Failure {
        FileWriter.Failure(errorNumber: errno, name: path)
    }

    /// Standard output or standard error, if that goes to the file.
    private static func standardDescriptor(_ status: stat) -> CInt? {
        [STDOUT_FILENO, STDERR_FILENO].first { descriptor in
            var standard = stat()
            // SAFETY: `standard` outlives the call.
            return unsafe fstat(descriptor, &standard) == 0
                && standard.st_dev == status.st_dev && standard.st_ino == status.st_ino
        }
    }

    private static func resolved(_ path: String) -> String {
        // SAFETY: the bridged string lives for the call, which allocates the text that is copied and freed
        // here.
        guard let text = unsafe realpath(path, nil) else { return path }
        defer { unsafe free(text) }
        return unsafe String(cString: text)
    }

    private static func unusable(_ path: String, _ flag: String, _ reason: String)
        -> CommandError
    {
        CommandError("the file \(path) of '--\(flag)' cannot be written: \(reason)", code: .usage)
    }
}
