/// What went wrong with the transfer agent or a transfer; the target's only error type.
public struct TransferError: Error, Sendable, Hashable, CustomStringConvertible {
    public enum Code: Sendable, Hashable {
        /// The agent cannot run here; the message says what to install.
        case missing
        /// A request was refused, a read failed, or the agent broke the protocol.
        case failed
        /// The agent has ended; start another one.
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
