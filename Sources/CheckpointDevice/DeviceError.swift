public import CheckpointNative

/// What went wrong with memory, files or devices of this host; the target's only error type.
public struct DeviceError: Error, Sendable, CustomStringConvertible {
    public enum Code: Sendable, Hashable {
        /// The bytes asked for do not fit.
        case insufficientMemory
        /// The process may have no more descriptors or threads.
        case insufficientResources
        /// A system call failed.
        case systemCall
        /// A native library was not found or lacks functions.
        case libraryMissing
        /// A call of a GPU's driver failed.
        case deviceFailed
        /// Another member of a group of GPUs is gone: why, that one knows.
        case peerLost
        /// The work was ended from outside.
        case cancelled
        /// A path is not what it has to be.
        case unusablePath
    }

    public let code: Code
    public let message: String
    /// The C function that failed, and its raw error number.
    public let call: String?
    public let errorNumber: Int32?

    public init(_ code: Code, _ message: String, call: String? = nil, errorNumber: Int32? = nil) {
        self.code = code
        self.message = message
        self.call = call
        self.errorNumber = errorNumber
    }

    public var description: String {
        guard let call, let errorNumber else { return message }
        return "\(message) (\(call): \(SystemText.of(errorNumber)))"
    }
}

extension DeviceError: ShortageError {
    public init(_ shortage: SystemShortage) { self.init(.insufficientResources, shortage.message) }
}
