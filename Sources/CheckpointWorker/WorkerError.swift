public import CheckpointNative

/// What went wrong between the daemon and an engine; the target's only error type.
public struct WorkerError: Error, Sendable, CustomStringConvertible {
    public enum Code: Sendable, Hashable {
        /// ZeroMQ was not found or lacks functions.
        case libraryMissing
        /// A call of ZeroMQ or of the system failed.
        case callFailed
        /// The process may have no more descriptors or threads.
        case insufficientResources
        /// A peer sent what the protocol does not allow.
        case protocolViolation
        /// A worker reported a failure of its own.
        case workerFailed
        /// A worker disconnected or never came.
        case workerLost
        /// The engine's HTTP server could not be reached or is not ready.
        case engineUnreachable
        /// The engine's HTTP server answered with an error.
        case engineFailed
        case deadlineExceeded
        /// Another host of the update failed, or is gone.
        case hostFailed
        /// The hosts that the bytes are read from did not deliver.
        case sourceFailed
        /// The files of the checkpoint are not those any more that were registered.
        case checkpointChanged
        case cancelled
        /// The engine does not take the caller, or is not where it was called.
        case engineRefused
        /// A URL or another argument is wrong.
        case invalidArgument
    }

    public let code: Code
    public let message: String
    /// A worker's traceback or an engine's answer.
    public let cause: String?

    public init(_ code: Code, _ message: String, cause: String? = nil) {
        self.code = code
        self.message = message
        self.cause = cause
    }

    public var description: String {
        guard let cause, !cause.isEmpty else { return message }
        return message + "\n" + cause
    }
}

extension WorkerError: ShortageError {
    public init(_ shortage: SystemShortage) { self.init(.insufficientResources, shortage.message) }
}
