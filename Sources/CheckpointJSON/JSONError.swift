/// Why a JSON text or value was refused; the target's only error type.
public struct JSONError: Error, Sendable, Hashable, CustomStringConvertible {
    /// The kind of refusal.
    public enum Code: Sendable, Hashable {
        /// The text is not JSON: a token is missing, wrong or cut off.
        case syntax
        /// A string holds invalid UTF-8, a raw control character or a wrong escape.
        case invalidString
        /// The text, a string or a number is longer than the limits allow.
        case tooLong
        /// Arrays and objects are nested deeper than the limits allow.
        case tooDeep
        /// A number does not fit the type that it is read into.
        case numberRange
        /// An object has one key twice.
        case duplicateKey
        /// A value is there, but of another kind than asked for.
        case unexpectedKind
        /// An object lacks a key.
        case missingKey
        /// An object has a key that nobody asked for.
        case additionalKey
    }

    public let code: Code
    public let message: String
    /// Where in the text, counted in bytes from its start; `nil` for a value that was parsed before.
    public let byteOffset: Int?

    /// Makes an error; `message` names the object, what was expected and what was there.
    public init(_ code: Code, _ message: String, at byteOffset: Int? = nil) {
        self.code = code
        self.message = message
        self.byteOffset = byteOffset
    }

    /// What is said of an integer that lies outside of `range`.
    static func outside(_ range: ClosedRange<Int>, _ got: String) -> String {
        "expected an integer from \(range.lowerBound) to \(range.upperBound), got \(got)"
    }

    public var description: String {
        guard let byteOffset else { return message }
        return "\(message) (byte \(byteOffset))"
    }
}
