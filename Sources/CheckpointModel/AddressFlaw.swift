/// Why a text is no address, or no URL.
public struct AddressFlaw: Error, Hashable, Sendable, CustomStringConvertible {
    /// What is wrong, what the text was, and what is expected.
    public let message: String

    init(_ message: String) { self.message = message }

    /// What is wrong with a part of `text`, which should have been of `form`.
    init(in text: String, form: String, _ part: AddressFlaw) {
        message = "\(Self.quoted(text.utf8)) is not of the form \(form): \(part.message)"
    }

    public var description: String { message }

    private static let quotedCountMax = 200

    /// `bytes` in quotes, cut, without anything that a terminal or a log would take for its own.
    static func quoted(_ bytes: some Collection<UInt8>) -> String {
        var text = "\""
        for byte in bytes.prefix(quotedCountMax) {
            if (0x20...0x7e).contains(byte) {
                text.append(Character(UnicodeScalar(byte)))
            } else {
                text += "\\x" + HexText.text(of: [byte])
            }
        }
        return text + (bytes.count > quotedCountMax ? "…\"" : "\"")
    }
}
