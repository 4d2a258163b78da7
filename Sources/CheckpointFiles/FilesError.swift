/// What is wrong with a checkpoint's files; the target's only error type.
public struct FilesError: Error, Sendable, CustomStringConvertible {
    public enum Code: Sendable, Hashable {
        /// The path names nothing that can be opened and read.
        case unreadable
        /// The path names something that is no safetensors file, index or directory of them.
        case notACheckpoint
        /// The bytes break the format.
        case malformed
        /// The file is shorter or longer than its header says.
        case wrongLength
        /// The index and its shards contradict each other.
        case indexMismatch
        /// Two tensors have one name.
        case duplicateTensor
        /// The file is not the one that was opened before.
        case changed
        /// Reading or writing failed.
        case inputOutput
        case cancelled
    }

    public let code: Code
    public let message: String
    /// The file or directory.
    public let path: String
    /// The failure underneath.
    public let cause: String?

    init(_ code: Code, _ path: String, _ message: String, cause: String? = nil) {
        self.code = code
        self.path = path
        self.message = message
        self.cause = cause
    }

    public var description: String {
        "\(path): \(message)" + (cause.map { ": \($0)" } ?? "")
    }
}
