/// What went wrong with the transfer agent or a transfer; the target's only error type.
public struct TransferError: Error, Sendable, Hashable, CustomStringConvertible {
    public enum Code: Sendable, Hashable {
        /// The agent cannot run here; the message says what to install.
        case missing
        /// The agent has answered that a request is refused or a read has failed, so that it writes no more;
        /// or one that starts does not speak the protocol.
        case failed
        /// The agent has ended, or was killed since it broke the protocol; start another one.
        case lost
        /// No answer came in time. What was asked for may still happen.
        case timedOut
        /// The task that waited was cancelled. What was asked for may still happen.
        case cancelled
    }

    public let code: Code
    public let message: String

    public init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }

    public var description: String { message }
}
