/// The name that a checkpoint is registered under: 1 to 128 characters of `A–Z a–z 0–9 . _ -`,
/// not starting with a dot, so that it is safe in paths, URLs, labels and logs.
public struct CheckpointName: Hashable, Sendable, CustomStringConvertible {
    public static let byteCountMax = 128
    public let description: String

    public init?(_ text: String) {
        let bytes = text.utf8
        guard (1...Self.byteCountMax).contains(bytes.count), bytes.first != UInt8(ascii: ".")
        else { return nil }
        let allowed = bytes.allSatisfy { byte in
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."), UInt8(ascii: "_"),
                UInt8(ascii: "-"):
                true
            default: false
            }
        }
        guard allowed else { return nil }
        self.description = text
    }

    /// What a name has to look like, for error messages.
    public static let rule = "1 to 128 characters of A-Z a-z 0-9 . _ - that do not start with a dot"
}
