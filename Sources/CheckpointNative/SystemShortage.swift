/// The system gives this process no more threads, or no more file descriptors.
public struct SystemShortage: Error, Hashable, CustomStringConvertible {
    /// What is short, which limit is the reason, and what to do.
    public let message: String

    init(_ message: String) { self.message = message }

    public var description: String { message }
}

/// An error that can tell of a shortage: that of a target whose calls run on threads of their own.
public protocol ShortageError: Error {
    init(_ shortage: SystemShortage)
}

extension SystemShortage: ShortageError {
    public init(_ shortage: SystemShortage) { self = shortage }
}
