public import Glibc

/// Whether other processes of this machine live.
public enum ProcessLife {
    /// Whether there is no process of that id any more.
    public static func isGone(_ id: pid_t) -> Bool { kill(id, 0) != 0 && errno == ESRCH }

    /// When the process began, in the kernel's ticks since the machine's start; `nil` where there is none
    /// or it has ended and waits for its parent. Two processes of one id began at different times.
    /// Source: proc(5), `/proc/pid/stat`.
    public static func start(of id: pid_t) -> UInt64? {
        guard let text = SystemFile.text("/proc/\(id)/stat") else { return nil }
        // The name, in parentheses, may have any character; the state follows it, then numbers.
        guard let end = text.lastIndex(of: ")") else { return nil }
        let fields = text[end...].split(separator: " ").dropFirst()
        guard let state = fields.first, state != "Z", state != "X", fields.count > 19 else {
            return nil
        }
        return UInt64(fields[fields.startIndex + 19])
    }
}
