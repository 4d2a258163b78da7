import ArgumentParser
import Logging

/// Flags about log lines.
struct LogOptions: ParsableArguments {
    enum Level: String, CommandValue, CaseIterable {
        case trace, debug, info, notice, warning, error, critical

        var level: Logger.Level {
            switch self {
            case .trace: .trace
            case .debug: .debug
            case .info: .info
            case .notice: .notice
            case .warning: .warning
            case .error: .error
            case .critical: .critical
            }
        }
    }

    enum Format: String, CommandValue, CaseIterable {
        case text, json
    }

    @Option(
        name: .customLong("log-level"),
        help: Variables.help(
            "log-level", "The least important log lines that are written to standard error.",
            "level"))
    var level: Level?

    @Option(
        name: .customLong("log-format"),
        help: Variables.help(
            "log-format", "How log lines are written; json puts one object on each line.",
            "format"))
    var format: Format?

    /// A logger for the whole process.
    func logger(default: Level, _ variables: Variables) throws -> Logger {
        let level = try variables.value(level, "log-level") ?? `default`
        let format = try variables.value(format, "log-format") ?? .text
        var logger = Logger(label: "checkpoint-engine") { _ in ConsoleLogHandler(format: format) }
        logger.logLevel = level.level
        return logger
    }
}
