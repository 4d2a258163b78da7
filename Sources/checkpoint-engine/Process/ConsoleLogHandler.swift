import FoundationEssentials
import Logging

/// Writes each log line to standard error: for people, or as one JSON object for machines.
struct ConsoleLogHandler: LogHandler {
    private struct Line: Encodable {
        let time: String
        let level: String
        let message: String
        let metadata: [String: String]
    }

    let format: LogOptions.Format
    var logLevel = Logger.Level.info
    var metadata: Logger.Metadata = [:]
    var metadataProvider: Logger.MetadataProvider?

    init(format: LogOptions.Format) {
        self.format = format
    }

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        var all = metadata
        if let provided = metadataProvider?.get() { all.merge(provided) { $1 } }
        if let given = event.metadata { all.merge(given) { $1 } }
        let line = Line(
            time: Date.ISO8601FormatStyle(includingFractionalSeconds: true).format(.now),
            level: event.level.rawValue, message: event.message.description,
            metadata: all.mapValues(\.description))
        Terminal.standardError.write((format == .json ? Self.json(line) : Self.text(line)) + "\n")
    }

    private static func text(_ line: Line) -> String {
        let pairs = line.metadata.sorted { $0.key < $1.key }
            .map { " \($0.key)=\(quoted($0.value))" }
        return PrintableText.escaped(
            "\(line.time) \(line.level) \(line.message)\(pairs.joined())")
    }

    private static func json(_ line: Line) -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        guard let bytes = try? encoder.encode(line) else { return text(line) }
        return PrintableText.escapedJSON(String(decoding: bytes, as: UTF8.self))
    }

    /// A value stays on its line and apart from its neighbours.
    private static func quoted(_ text: String) -> String {
        let isPlain = text.unicodeScalars.allSatisfy { $0.value > 0x20 && $0 != "\"" && $0 != "=" }
        return isPlain && !text.isEmpty ? text : text.debugDescription
    }
}
