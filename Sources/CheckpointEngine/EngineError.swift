public import CheckpointNative

/// What went wrong in a call to ``CheckpointEngine``; the target's only error type.
public struct EngineError: Error, Sendable {
    /// What kind of failure it is; a caller chooses its reaction (or an HTTP status) by it.
    public enum Code: String, Sendable, CaseIterable {
        /// The request itself is wrong.
        case invalidArgument = "invalid_argument"
        /// The checkpoint's files are missing, unreadable or malformed.
        case invalidCheckpoint = "invalid_checkpoint"
        /// There is no checkpoint or update of that name.
        case notFound = "not_found"
        /// The name is taken.
        case alreadyExists = "already_exists"
        /// The object is in a state that does not allow the call now, an update of it is running.
        case busy
        /// The bytes do not fit.
        case insufficientMemory = "insufficient_memory"
        /// The process may have no more descriptors or threads.
        case insufficientResources = "insufficient_resources"
        /// The right to read a file or to use a directory is missing.
        case permissionDenied = "permission_denied"
        /// A native library or a system call is missing or failed.
        case system
        /// The engine's HTTP server could not be reached or did not become ready.
        case engineUnreachable = "engine_unreachable"
        /// The engine's HTTP server answered with an error.
        case engineFailed = "engine_failed"
        /// A worker reported a failure.
        case workerFailed = "worker_failed"
        /// A worker disconnected or never came.
        case workerLost = "worker_lost"
        /// Another host of the update failed, or is gone.
        case hostFailed = "host_failed"
        /// The hosts that a checkpoint is read from do not have it, or did not deliver.
        case sourceFailed = "source_failed"
        /// The deadline passed.
        case deadlineExceeded = "deadline_exceeded"
        /// The caller cancelled, or the daemon is stopping.
        case cancelled
    }

    public let code: Code
    /// One or more sentences that name the object, what was expected and found, and the remedy.
    public let message: String
    /// The text of the failure underneath: a worker's traceback, an engine's answer, a system error.
    public let cause: String?

    public init(_ code: Code, _ message: String, cause: String? = nil) {
        self.code = code
        self.message = message
        self.cause = cause
    }
}

extension EngineError: CustomStringConvertible {
    public var description: String {
        guard let cause, !cause.isEmpty else { return message }
        return message + "\n" + cause
    }
}

extension EngineError: ShortageError {
    public init(_ shortage: SystemShortage) { self.init(.insufficientResources, shortage.message) }
}
