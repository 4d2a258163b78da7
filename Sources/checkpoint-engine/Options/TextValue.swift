import ArgumentParser

/// A short text without spaces.
struct TextValue: CommandValue {
    static let rule = "a text of 1 to \(byteCountMax) bytes without spaces"
    private static let byteCountMax = 256
    let text: String

    init?(argument: String) {
        guard (1...Self.byteCountMax).contains(argument.utf8.count),
            argument.unicodeScalars.allSatisfy({ !$0.properties.isWhitespace && $0.value >= 0x20 })
        else { return nil }
        text = argument
    }
}
