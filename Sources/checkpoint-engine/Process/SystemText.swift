import Glibc

/// Texts for error numbers.
enum SystemText {
    /// `No such file or directory (errno 2)`.
    static func of(_ errorNumber: CInt) -> String {
        // SAFETY: the text belongs to this thread and is copied before the next call.
        guard let text = unsafe strerror(errorNumber) else { return "errno \(errorNumber)" }
        return unsafe "\(String(cString: text)) (errno \(errorNumber))"
    }
}
