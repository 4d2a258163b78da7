/// What went wrong while a checkpoint was read from other hosts; the target's only error type.
public struct PullError: Error, Sendable, Hashable {
    public enum Code: Sendable, Hashable {
        /// The transfer agent or its package is missing, or it cannot start.
        case agentMissing
        /// No source has the checkpoint, or what the sources have differs.
        case noSource
        /// The sources that were left did not deliver.
        case sourceFailed
        /// A source speaks another protocol, or sent something malformed.
        case invalidAnswer
        /// Local memory cannot be used.
        case system
        /// The file system of the local memory is full.
        case insufficientMemory
        /// Local memory may be written to still, and is not to be used again.
        case memoryInUse
        /// A file that is used in place is not the one any more that was registered.
        case changed
        case cancelled
    }

    public let code: Code
    public let message: String

    public init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }
}

extension PullError: CustomStringConvertible {
    public var description: String { message }
}
