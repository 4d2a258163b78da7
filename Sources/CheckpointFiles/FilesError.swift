import CheckpointNative

/// What is wrong with a checkpoint's files; the target's only error type.
public struct FilesError: Error, Sendable, CustomStringConvertible {
    public enum Code: Sendable, Hashable {
        /// The path names nothing that can be opened.
        case missing
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
        /// There is no memory, or no room for what is written.
        case insufficientMemory
        /// No more files can be open at a time.
        case insufficientDescriptors
        /// The right to read or write is missing.
        case permissionDenied
        /// The system fails in another way.
        case system
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
        self.message = message
        self.path = path
        self.cause = cause
    }

    /// A call of the system that failed with the error `number`.
    init(_ number: CInt, _ path: String, _ message: String) {
        let fault = SystemFault(number)
        let code: Code =
            switch fault {
            case .memory: .insufficientMemory
            case .descriptors: .insufficientDescriptors
            case .permission: .permissionDenied
            case .path: .missing
            case .device: .system
            }
        self.init(
            code, path, "\(message); \(fault.remedy)", cause: FileIdentity.text(number))
    }

    public var description: String {
        "\(path): \(message)" + (cause.map { ": \($0)" } ?? "")
    }
}
