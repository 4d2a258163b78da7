/// The secret that clients of a protected daemon send as `Authorization: Bearer TOKEN`.
public struct BearerToken: Sendable {
    /// Fewer characters are too easy to guess.
    public static let byteCountMin = 16
    public static let byteCountMax = 4096
    /// What a token has to look like, for error messages.
    public static let rule =
        "\(Self.byteCountMin) to \(Self.byteCountMax) printable ASCII characters without spaces"

    private let bytes: [UInt8]

    /// Takes the token without the white space around it; `nil` where it breaks ``rule``.
    public init?(_ text: String) {
        let bytes = Self.trimmed(Array(text.utf8))
        guard (Self.byteCountMin...Self.byteCountMax).contains(bytes.count),
            bytes.allSatisfy({ (0x21...0x7E).contains($0) })
        else { return nil }
        self.bytes = bytes
    }

    /// The secret itself, for peers that ask for it in another way than by a header.
    public var text: String { String(decoding: bytes, as: UTF8.self) }

    /// Whether the header's value carries this token. The time that it takes depends on the length
    /// of the value alone.
    func isCarried(by header: String?) -> Bool {
        guard let header else { return false }
        let words = header.split(separator: " ", maxSplits: 1)
        guard words.count == 2, words[0].lowercased() == "bearer" else { return false }
        let offered = Array(words[1].utf8)
        var difference: UInt8 = offered.count == bytes.count ? 0 : 1
        for (index, byte) in offered.enumerated() {
            difference |= byte ^ bytes[index % bytes.count]
        }
        return difference == 0
    }

    private static func trimmed(_ bytes: [UInt8]) -> [UInt8] {
        let isSpace: (UInt8) -> Bool = { $0 == 0x20 || (0x09...0x0D).contains($0) }
        let end = bytes.lastIndex { !isSpace($0) }.map { $0 + 1 } ?? 0
        return Array(bytes[..<end].drop(while: isSpace))
    }
}
