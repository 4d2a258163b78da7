/// What went wrong between the daemons of several hosts; the target's only error type.
public struct HostError: Error, Sendable, CustomStringConvertible {
    public enum Code: Sendable, Hashable {
        /// A host could not be reached, or its connection was lost.
        case hostLost
        /// A host has ended what all were doing.
        case hostFailed
        case deadlineExceeded
        /// A peer sent what the protocol does not allow.
        case protocolViolation
        case invalidArgument
        /// The caller was cancelled.
        case cancelled
    }

    public let code: Code
    public let message: String

    init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }

    public var description: String { message }
}
