import CNative

/// Texts for error numbers.
enum SystemText {
    /// `No such file or directory, errno 2`.
    static func of(_ errorNumber: Int32) -> String {
        // SAFETY: the C library returns a constant string or nil.
        guard let text = unsafe ce_error_text(errorNumber) else {
            return "unknown error, errno \(errorNumber)"
        }
        return unsafe String(cString: text) + ", errno \(errorNumber)"
    }
}
