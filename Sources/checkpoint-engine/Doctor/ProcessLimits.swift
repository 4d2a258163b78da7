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
    func soft(_ name: String) -> Limit? {
        guard let line = lines.first(where: { $0.hasPrefix(name) }) else { return nil }
        guard let word = line.dropFirst(name.count).split(separator: " ").first else { return nil }
        if word == "unlimited" { return .unlimited }
        return Int(word).map(Limit.value)
    }
}
