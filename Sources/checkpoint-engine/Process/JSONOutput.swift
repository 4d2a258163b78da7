import FoundationEssentials

/// JSON for standard output.
enum JSONOutput {
    /// One line with sorted keys, so that equal values give equal text.
    static func text(_ value: some Encodable) throws -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        return String(decoding: try encoder.encode(value), as: UTF8.self) + "\n"
    }
}
