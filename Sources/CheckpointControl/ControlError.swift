public import CheckpointEngine
public import CheckpointNative

/// What went wrong with a request or with the server itself; the target's only error type.
public struct ControlError: Error, Sendable {
    public enum Code: Hashable, Sendable {
        /// The engine refused or failed.
        case engine(EngineError.Code)
        /// The request lacks the token, or has a wrong one.
        case unauthorized
        /// The caller may not do that: a web page, or a reader that gives an order.
        case forbidden
        /// As many callers of this kind as the daemon has places for wait already.
        case overloaded
        /// There is no such route.
        case noRoute
        /// The route exists for other methods.
        case methodNotAllowed
        /// The body is larger than the limit.
        case contentTooLarge
        /// The server cannot listen on its address.
        case listenFailed
        /// A failure that nobody expected.
        case internalError
    }

    public let code: Code
    /// One or more sentences that name the object, what was expected and found, and the remedy.
    public let message: String
    /// The text of the failure underneath.
    public let cause: String?
    /// The update that failed, where there is one.
    public let update: String?

    init(_ code: Code, _ message: String, cause: String? = nil, update: String? = nil) {
        self.code = code
        self.message = message
        self.cause = cause
        self.update = update
    }

    init(_ error: EngineError, update: String? = nil) {
        self.init(.engine(error.code), error.message, cause: error.cause, update: update)
    }

    /// The request is wrong.
    static func invalid(_ message: String, cause: String? = nil) -> ControlError {
        ControlError(.engine(.invalidArgument), message, cause: cause)
    }
}

extension ControlError: ShortageError {
    public init(_ shortage: SystemShortage) { self.init(EngineError(shortage)) }
}

extension ControlError: CustomStringConvertible {
    public var description: String {
        guard let cause, !cause.isEmpty else { return message }
        return message + "\n" + cause
    }
}
