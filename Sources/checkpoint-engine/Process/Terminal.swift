import ArgumentParser
import Glibc

/// Standard output or standard error. Everything that people read is written here, so this is where control
/// characters of names and messages from elsewhere are made visible.
struct Terminal: Sendable {
    static let standardOutput = Terminal(STDOUT_FILENO, "standard output")
    static let standardError = Terminal(STDERR_FILENO, "standard error")
    /// What a shell reports for a program that SIGPIPE has ended.
    private static let closedPipeCode = 128 + SIGPIPE

    private let descriptor: CInt
    private let name: String
    /// Whether a person looks at it.
    let isInteractive: Bool

    private init(_ descriptor: CInt, _ name: String) {
        self.descriptor = descriptor
        self.name = name
        self.isInteractive = isatty(descriptor) == 1
    }

    /// Writes a message. Nothing can be done where nobody reads it any more.
    func write(_ text: String) {
        try? FileWriter.write(Self.bytes(text), to: descriptor, named: name)
    }

    /// Takes the cursor back to the first column, writes the text, and clears what was behind it.
    func writeOver(_ text: String) {
        let bytes = Array("\r".utf8) + Self.bytes(text) + Array("\u{1B}[K".utf8)
        try? FileWriter.write(bytes, to: descriptor, named: name)
    }

    /// Writes a result: all of it, or throws. Where the reader has gone away it throws the exit code of
    /// a program that SIGPIPE has ended, without a message.
    func print(_ text: String) throws {
        do throws(FileWriter.Failure) {
            try FileWriter.write(Self.bytes(text), to: descriptor, named: name)
            try flush()
        } catch {
            guard error.errorNumber != EPIPE else { throw ExitCode(Self.closedPipeCode) }
            throw CommandError(
                "cannot write to \(error.name): \(SystemText.of(error.errorNumber)); what was written "
                    + "is not complete")
        }
    }

    /// Some file systems tell at the end only that they did not have room.
    private func flush() throws(FileWriter.Failure) {
        let copy = dup(descriptor)
        guard copy >= 0, close(copy) == 0 || errno == EINTR else {
            throw FileWriter.Failure(errorNumber: errno, name: name)
        }
    }

    private static func bytes(_ text: String) -> [UInt8] {
        Array(PrintableText.escaped(text, keeping: "\n\t").utf8)
    }
}
