import Glibc

/// Standard input, output and error, as the process was started with them.
enum StandardStreams {
    /// Makes writes to them fail as any others do, so that they are reported. To be called first.
    ///
    /// Where one is closed, the next file that is opened would take its place, and results would be written
    /// to that: a descriptor that can neither be written nor, as standard input, read stands for it. A closed
    /// pipe and a file that may not become longer are errors and no signals.
    static func prepare() {
        for descriptor in STDIN_FILENO...STDERR_FILENO where fcntl(descriptor, F_GETFD) < 0 {
            let isInput = descriptor == STDIN_FILENO
            // SAFETY: a constant string. The lowest free number is the one that is missing.
            _ = unsafe open("/dev/null", isInput ? O_WRONLY : O_RDONLY)
        }
        for number in [SIGPIPE, SIGXFSZ] { _ = signal(number, SIG_IGN) }
    }
}
