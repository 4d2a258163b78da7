/// The limits of this process.
///
/// Source: proc_pid_limits(5).
struct ProcessLimits {
    enum Limit {
        case unlimited
        case value(Int)
    }

    private let lines: [Substring]

    static func current() -> ProcessLimits {
        ProcessLimits(SmallFile.text("/proc/self/limits") ?? "")
    }

    init(_ text: String) {
        lines = text.split(separator: "\n")
    }

    /// The soft limit of that name; `nil` where it is not listed.
    func soft(_ name: String) -> Limit? { limit(name, column: 0) }

    /// What the soft limit can be raised to.
    func hard(_ name: String) -> Limit? { limit(name, column: 1) }

    private func limit(_ name: String, column: Int) -> Limit? {
        guard let line = lines.first(where: { $0.hasPrefix(name) }) else { return nil }
        let words = line.dropFirst(name.count).split(separator: " ")
        guard column < words.count else { return nil }
        if words[column] == "unlimited" { return .unlimited }
        return Int(words[column]).map(Limit.value)
    }
}
