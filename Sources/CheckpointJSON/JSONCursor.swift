/// A pull parser for one JSON text (RFC 8259) that nobody vouches for.
///
/// The caller asks for what it expects and the cursor moves over it or throws; after an error the
/// cursor is not used any more. Nothing is buffered: memory is the text, and what the caller keeps.
/// Duplicate keys are the caller's to notice, since only the caller knows which keys it keeps.
///
///     try cursor.beginObject()
///     while let key = try cursor.nextKey() { values[key] = try cursor.readInteger() }
///     try cursor.end()
public struct JSONCursor: Sendable {
    /// What an open container waits for.
    private enum Container {
        case objectStart, objectRest, arrayStart, arrayRest
    }

    let bytes: [UInt8]
    let limits: JSONLimits
    /// The next byte to read.
    public internal(set) var byteOffset = 0
    private var containers: [Container] = []

    /// Starts at the first byte. Throws when there are more bytes than the limit.
    public init(_ bytes: [UInt8], limits: JSONLimits) throws(JSONError) {
        guard bytes.count <= limits.byteCountMax else {
            throw JSONError(
                .tooLong,
                "the text has \(bytes.count) bytes: at most \(limits.byteCountMax) are allowed")
        }
        self.bytes = bytes
        self.limits = limits
    }

    /// Enters an object.
    public mutating func beginObject() throws(JSONError) {
        try begin(.objectStart, ASCII.openBrace, .object)
    }

    /// The next key of the object entered last, with the cursor before its value; `nil` when the
    /// object has ended and is left.
    public mutating func nextKey() throws(JSONError) -> String? {
        guard try next(.objectStart, .objectRest, close: ASCII.closeBrace) else { return nil }
        guard try peek() == ASCII.quote else { throw unexpected("a key") }
        let key = try readString()
        guard try peek() == ASCII.colon else { throw unexpected("':'") }
        byteOffset += 1
        return key
    }

    /// Enters an array.
    public mutating func beginArray() throws(JSONError) {
        try begin(.arrayStart, ASCII.openBracket, .array)
    }

    /// Whether the array entered last has another element, with the cursor before it; `false` when
    /// the array has ended and is left.
    public mutating func nextElement() throws(JSONError) -> Bool {
        try next(.arrayStart, .arrayRest, close: ASCII.closeBracket)
    }

    /// The kind of the value that follows.
    public mutating func nextKind() throws(JSONError) -> JSONKind {
        switch try peek() {
        case ASCII.quote: return .string
        case ASCII.openBrace: return .object
        case ASCII.openBracket: return .array
        case ASCII.minus, ASCII.zero...ASCII.nine: return .number
        case UInt8(ascii: "t"), UInt8(ascii: "f"): return .boolean
        case UInt8(ascii: "n"): return .null
        default: throw unexpected("a value")
        }
    }

    public mutating func readBoolean() throws(JSONError) -> Bool {
        try require(.boolean)
        if skipWord("true") { return true }
        if skipWord("false") { return false }
        throw unexpected("true or false")
    }

    public mutating func readNull() throws(JSONError) {
        try require(.null)
        guard skipWord("null") else { throw unexpected("null") }
    }

    /// Moves over one value of any kind. Its syntax and limits are checked, not its duplicate keys.
    public mutating func skipValue() throws(JSONError) {
        // The recursion is as deep as the containers are: the limit bounds it.
        switch try nextKind() {
        case .null: try readNull()
        case .boolean: _ = try readBoolean()
        case .number: _ = try readNumberToken()
        case .string: _ = try readString()
        case .array:
            try beginArray()
            while try nextElement() { try skipValue() }
        case .object:
            try beginObject()
            while try nextKey() != nil { try skipValue() }
        }
    }

    /// Checks that nothing but white space follows.
    public mutating func end() throws(JSONError) {
        skipWhitespace()
        guard byteOffset == bytes.count else { throw unexpected("the end of the text") }
    }
}

// MARK: - Tokens

extension JSONCursor {
    private mutating func begin(_ container: Container, _ open: UInt8, _ kind: JSONKind)
        throws(JSONError)
    {
        guard try peek() == open else { throw try wrongKind(kind) }
        guard containers.count < limits.depthMax else {
            throw JSONError(
                .tooDeep,
                "values are nested deeper than the \(limits.depthMax) levels that are allowed",
                at: byteOffset)
        }
        byteOffset += 1
        containers.append(container)
    }

    private mutating func next(_ start: Container, _ rest: Container, close: UInt8)
        throws(JSONError) -> Bool
    {
        let container = containers.popLast()
        precondition(
            container == start || container == rest, "the cursor is in another kind of container")
        let byte = try peek()
        if byte == close {
            byteOffset += 1
            return false
        }
        if container == rest {
            guard byte == ASCII.comma else {
                throw unexpected(close == ASCII.closeBrace ? "',' or '}'" : "',' or ']'")
            }
            byteOffset += 1
        }
        containers.append(rest)
        return true
    }

    /// The first byte of the next token; the cursor stands on it.
    mutating func peek() throws(JSONError) -> UInt8 {
        skipWhitespace()
        guard byteOffset < bytes.count else { throw unexpected("more") }
        return bytes[byteOffset]
    }

    /// The byte under the cursor, white space or not.
    var current: UInt8? { byteOffset < bytes.count ? bytes[byteOffset] : nil }

    private mutating func skipWhitespace() {
        while byteOffset < bytes.count {
            switch bytes[byteOffset] {
            case 0x20, 0x0A, 0x0D, 0x09: byteOffset += 1
            default: return
            }
        }
    }

    private mutating func skipWord(_ word: StaticString) -> Bool {
        let text = word.description.utf8
        guard bytes[byteOffset...].starts(with: text) else { return false }
        byteOffset += text.count
        return true
    }

    mutating func require(_ kind: JSONKind) throws(JSONError) {
        guard try nextKind() == kind else { throw try wrongKind(kind) }
    }

    private mutating func wrongKind(_ expected: JSONKind) throws(JSONError) -> JSONError {
        let got = try nextKind()
        return JSONError(
            .unexpectedKind, "expected \(expected.rawValue), got \(got.rawValue)", at: byteOffset)
    }

    /// A syntax error at the cursor.
    func unexpected(_ expected: String) -> JSONError {
        let got =
            switch current {
            case nil: "the end of the text"
            case .some(let byte) where byte > 0x20 && byte < 0x7F:
                "'\(Character(Unicode.Scalar(byte)))'"
            case .some(let byte): "the byte 0x" + String(byte, radix: 16)
            }
        return JSONError(.syntax, "expected \(expected), got \(got)", at: byteOffset)
    }
}
