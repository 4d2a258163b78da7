import FoundationEssentials

/// JSON for standard output and files.
enum JSONOutput {
    /// One line with sorted keys, so that equal values give equal text.
    static func text(_ value: some Encodable) throws -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        let text = String(decoding: try encoder.encode(value), as: UTF8.self)
        return PrintableText.escapedJSON(text) + "\n"
    }
}
