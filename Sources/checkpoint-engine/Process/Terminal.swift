import Glibc

/// Standard output or standard error.
struct Terminal: Sendable {
    static let standardOutput = Terminal(descriptor: STDOUT_FILENO)
    static let standardError = Terminal(descriptor: STDERR_FILENO)

    private let descriptor: CInt
    /// Whether a person looks at it.
    let isInteractive: Bool

    private init(descriptor: CInt) {
        self.descriptor = descriptor
        self.isInteractive = isatty(descriptor) == 1
    }

    /// Writes all of the text. Nothing can be done where nobody reads it any more.
    func write(_ text: String) {
        var bytes = Array(text.utf8)[...]
        while !bytes.isEmpty {
            // SAFETY: the length passed is that of the buffer, which lives for the call.
            let count = unsafe bytes.withUnsafeBytes { buffer in
                unsafe Glibc.write(descriptor, buffer.baseAddress, buffer.count)
            }
            if count > 0 {
                bytes = bytes.dropFirst(count)
            } else if errno != EINTR {
                return
            }
        }
    }
}
