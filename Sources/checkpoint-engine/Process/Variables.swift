import ArgumentParser
import FoundationEssentials

/// The environment variables that stand for flags, and the few others that the program reads. No
/// other file reads the environment.
struct Variables: Sendable {
    static let prefix = "CHECKPOINT_ENGINE_"
    /// The variables of this process, read once.
    static let process = Variables(ProcessInfo.processInfo.environment)

    private let values: [String: String]

    init(_ values: [String: String]) {
        self.values = values
    }

    /// `CHECKPOINT_ENGINE_SLEEP_TIME` for `sleep-time`.
    static func name(_ flag: String) -> String {
        prefix + flag.uppercased().split(separator: "-").joined(separator: "_")
    }

    /// Help for a flag that is also a variable.
    static func help(_ flag: String, _ text: String, _ value: String? = nil) -> ArgumentHelp {
        ArgumentHelp("\(text) [\(name(flag))]", valueName: value)
    }

    /// What was given on the command line, else what the flag's variable says; an empty variable
    /// counts as unset.
    func value<Value: CommandValue>(_ given: Value?, _ flag: String) throws -> Value? {
        if let given { return given }
        return try text(flag).map { try Self.parse($0, flag) }
    }

    /// The same for a flag that may be repeated; its variable separates values by commas.
    func values<Value: CommandValue>(_ given: [Value], _ flag: String) throws -> [Value] {
        guard given.isEmpty, let text = text(flag) else { return given }
        return try text.split(separator: ",").map { try Self.parse(String($0), flag) }
    }

    /// The same for a switch; `fallback` is what it is when nobody says anything.
    func isOn(_ given: Bool?, _ flag: String, default fallback: Bool = false) throws -> Bool {
        try choice(given, flag) ?? fallback
    }

    /// The same for a switch that nobody needs to say anything about; `nil` then.
    func choice(_ given: Bool?, _ flag: String) throws -> Bool? {
        if let given { return given }
        guard let text = text(flag) else { return nil }
        switch text.lowercased() {
        case "1", "true", "yes", "on": return true
        case "0", "false", "no", "off": return false
        default:
            throw ValidationError(
                "The variable \(Self.name(flag)) is '\(text)': expected true or false.")
        }
    }

    /// The file that a flag wants results in; throws where it cannot be made.
    func file(_ given: PathValue?, _ flag: String) throws -> OutputFile? {
        try value(given, flag).map { try OutputFile($0.path, flag: flag) }
    }

    /// The value of a flag that has to be given.
    func required<Value: CommandValue>(_ given: Value?, _ flag: String) throws -> Value {
        guard let value = try value(given, flag) else {
            throw ValidationError(
                "Missing expected option '--\(flag)' (or the variable \(Self.name(flag))).")
        }
        return value
    }

    /// A variable that others set, as it is; `nil` for an empty one.
    func plain(_ name: String) -> String? { values[name].flatMap { $0.isEmpty ? nil : $0 } }

    func number(_ name: String) -> Int? { values[name].flatMap { Int($0) } }

    private func text(_ flag: String) -> String? {
        guard let text = values[Self.name(flag)], !text.isEmpty else { return nil }
        return text
    }

    private static func parse<Value: CommandValue>(_ text: String, _ flag: String) throws -> Value {
        guard let value = Value(argument: text) else {
            throw ValidationError(
                "The variable \(name(flag)) is '\(text)': expected \(Value.rule).")
        }
        return value
    }
}

extension Variables {
    /// Directories of Python environments that may hold pyzmq: that of the activated environment,
    /// of conda, and of the user.
    var pythonPrefixes: [String] {
        var prefixes = ["VIRTUAL_ENV", "CONDA_PREFIX"].compactMap { values[$0] }
        if let home = values["HOME"] { prefixes.append(home + "/.local") }
        return prefixes.filter { $0.hasPrefix("/") }
    }

    /// The directories of `PATH`.
    var searchPath: [String] {
        (values["PATH"] ?? "").split(separator: ":").map(String.init).filter { $0.hasPrefix("/") }
    }
}
