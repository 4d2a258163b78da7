/// The mounted file systems.
///
/// Source: proc_pid_mountinfo(5).
public struct MountTable: Sendable {
    public struct Mount: Hashable, Sendable {
        public let point: String
        /// The directory of the file system that is seen there.
        public let root: String
        public let type: String
        /// Options of the file system itself, among them the controllers of a control group.
        public let options: [String]

        /// Whether its files lie in memory alone.
        public var isMemory: Bool { ["tmpfs", "ramfs", "hugetlbfs"].contains(type) }
    }

    public let mounts: [Mount]

    /// The mounts that this process sees now.
    public static func current() -> MountTable {
        MountTable(KernelText.read("/proc/self/mountinfo") ?? "")
    }

    public init(_ text: String) {
        mounts = text.split(separator: "\n").compactMap { line in
            let halves = line.split(separator: " - ", maxSplits: 1)
            guard halves.count == 2 else { return nil }
            let fields = halves[0].split(separator: " ")
            let ending = halves[1].split(separator: " ")
            guard fields.count > 4, let type = ending.first else { return nil }
            return Mount(
                point: Self.unescaped(fields[4]), root: Self.unescaped(fields[3]),
                type: String(type),
                options: ending.count > 2 ? ending[2].split(separator: ",").map(String.init) : [])
        }
    }

    /// The mount that an absolute path lies on; of several at one point the last one counts.
    public func mount(of path: String) -> Mount? {
        var best: Mount?
        for mount in mounts {
            let start = mount.point == "/" ? "/" : mount.point + "/"
            guard path == mount.point || path.hasPrefix(start) else { continue }
            if mount.point.utf8.count >= best?.point.utf8.count ?? 0 { best = mount }
        }
        return best
    }

    /// The kernel writes blanks and backslashes as `\040`.
    private static func unescaped(_ text: Substring) -> String {
        guard text.utf8.contains(UInt8(ascii: "\\")) else { return String(text) }
        var bytes: [UInt8] = []
        var rest = Array(text.utf8)[...]
        while let byte = rest.popFirst() {
            if byte == UInt8(ascii: "\\"),
                let code = UInt8(String(decoding: rest.prefix(3), as: UTF8.self), radix: 8)
            {
                bytes.append(code)
                rest = rest.dropFirst(3)
            } else {
                bytes.append(byte)
            }
        }
        return String(decoding: bytes, as: UTF8.self)
    }
}
