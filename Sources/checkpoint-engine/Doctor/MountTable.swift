/// The mounted file systems.
///
/// Source: proc_pid_mountinfo(5).
struct MountTable {
    struct Mount {
        let point: String
        let type: String

        /// Whether its files lie in memory alone.
        var isMemory: Bool { ["tmpfs", "ramfs", "hugetlbfs"].contains(type) }
    }

    let mounts: [Mount]

    static func current() -> MountTable {
        MountTable(SmallFile.text("/proc/self/mountinfo") ?? "")
    }

    init(_ text: String) {
        mounts = text.split(separator: "\n").compactMap { line in
            let halves = line.split(separator: " - ", maxSplits: 1)
            guard halves.count == 2 else { return nil }
            let fields = halves[0].split(separator: " ")
            guard fields.count > 4, let type = halves[1].split(separator: " ").first else {
                return nil
            }
            return Mount(point: String(fields[4]), type: String(type))
        }
    }

    /// The mount that an absolute path lies on; of several at one point the last one counts.
    func mount(of path: String) -> Mount? {
        var best: Mount?
        for mount in mounts {
            let start = mount.point == "/" ? "/" : mount.point + "/"
            guard path == mount.point || path.hasPrefix(start) else { continue }
            if mount.point.utf8.count >= best?.point.utf8.count ?? 0 { best = mount }
        }
        return best
    }
}
