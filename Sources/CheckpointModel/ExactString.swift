/// A text that equals another only where all of its bytes are the same.
///
/// `String` takes two normal forms of one character for equal, and a slash with a combining mark for one character
/// of its own. Tensors, files and paths are named by bytes, for every other program, and so they are here: as keys of
/// sets and dictionaries.
public struct ExactString: Hashable, Sendable {
    public let text: String

    public init(_ text: String) { self.text = text }

    public static func == (left: ExactString, right: ExactString) -> Bool {
        let (left, right) = (left.text.utf8.span, right.text.utf8.span)
        guard left.count == right.count else { return false }
        let count = left.count
        var place = 0
        while count - place >= wordByteCount {
            // SAFETY: a word from `place` on lies in both, and any bytes are one.
            guard unsafe word(of: left, at: place) == word(of: right, at: place) else {
                return false
            }
            place += wordByteCount
        }
        while place < count {
            guard left[place] == right[place] else { return false }
            place += 1
        }
        return true
    }

    private static let wordByteCount = 8

    @unsafe
    private static func word(of bytes: Span<UInt8>, at place: Int) -> UInt64 {
        unsafe bytes.bytes.unsafeLoadUnaligned(fromByteOffset: place, as: UInt64.self)
    }

    /// Texts of the same bytes have the same hash as strings, too.
    public func hash(into hasher: inout Hasher) { text.hash(into: &hasher) }
}

extension ExactString: Comparable {
    /// By bytes.
    public static func < (left: ExactString, right: ExactString) -> Bool {
        left.text.utf8.lexicographicallyPrecedes(right.text.utf8)
    }
}

extension String {
    /// Whether its first bytes are those of `prefix`.
    public func startsExactly(with prefix: String) -> Bool { utf8.starts(with: prefix.utf8) }

    /// Whether its last bytes are those of `suffix`.
    public func endsExactly(with suffix: String) -> Bool {
        utf8.count >= suffix.utf8.count && utf8.suffix(suffix.utf8.count).elementsEqual(suffix.utf8)
    }

    /// Whether one of its bytes is this ASCII character.
    public func containsExactly(_ character: Unicode.Scalar) -> Bool {
        utf8.contains { $0 == UInt8(ascii: character) }
    }

    /// The name behind the last slash; all of it where there is none.
    public var lastPathComponent: String {
        guard let slash = utf8.lastIndex(of: UInt8(ascii: "/")) else { return self }
        return String(decoding: utf8[utf8.index(after: slash)...], as: UTF8.self)
    }

    /// The path of the directory that the path lies in: `.` where it has no slash.
    public var directoryPath: String {
        guard let slash = utf8.lastIndex(of: UInt8(ascii: "/")) else { return "." }
        return slash == utf8.startIndex ? "/" : String(decoding: utf8[..<slash], as: UTF8.self)
    }
}
