import FoundationEssentials
import Glibc

/// A process of this machine, as `/proc` tells of it.
///
/// Sources: proc_pid_environ(5), proc_pid_status(5).
struct OtherProcess: CustomStringConvertible {
    let id: pid_t

    /// The one that started this process.
    static var parent: OtherProcess { OtherProcess(id: getppid()) }

    /// Every process that there is now.
    static var all: [OtherProcess] {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []
        return names.compactMap { pid_t($0).map(OtherProcess.init) }
    }

    /// The variables that it was started with; none where they cannot be read, as of another user's
    /// process or of one that has ended.
    var variables: Variables {
        let entries = (SmallFile.text("/proc/\(id)/environ") ?? "").split(separator: "\0")
        let pairs = entries.compactMap { entry -> (String, String)? in
            guard let sign = entry.firstIndex(of: "=") else { return nil }
            return (String(entry[..<sign]), String(entry[entry.index(after: sign)...]))
        }
        return Variables(Dictionary(pairs) { first, _ in first })
    }

    /// `nil` for the first process of all, and for one that is gone.
    var parent: OtherProcess? {
        guard let id = number("PPid:").flatMap({ pid_t(exactly: $0) }), id > 0 else { return nil }
        return OtherProcess(id: id)
    }

    /// How many threads the processes of this user have.
    static var threadCountOfUser: Int {
        let own = Int(getuid())
        return all.reduce(0) { count, process in
            process.number("Uid:") == own ? count + (process.number("Threads:") ?? 0) : count
        }
    }

    /// The first number of a line of `/proc/ID/status`.
    private func number(_ name: String) -> Int? {
        let lines = (SmallFile.text("/proc/\(id)/status") ?? "").split(separator: "\n")
        let words = lines.first { $0.hasPrefix(name) }?.split(whereSeparator: \.isWhitespace)
        return words?.dropFirst().first.flatMap { Int($0) }
    }

    /// `process 123 (python3)`.
    var description: String {
        let name = SmallFile.text("/proc/\(id)/comm")?.split(separator: "\n").first
        return "process \(id)" + (name.map { " (\($0))" } ?? "")
    }
}
