/// A control group that limits the memory of this process: its own one, or one that it lies in.
struct MemoryGroup: Hashable, Sendable {
    /// Its directory.
    let path: String
    let limitByteCount: Int
    let usedByteCount: Int
    /// How much of what is used the kernel drops when it needs memory.
    let cacheByteCount: Int

    /// Bytes that can be taken before the kernel ends a process of the group.
    var freeByteCount: Int {
        max(0, limitByteCount - max(0, usedByteCount - cacheByteCount))
    }

    /// `nil` where the group has no limit. `read` gives the text of a file.
    init?(_ directory: ControlGroups.Directory, _ read: (String) -> String?) {
        let (version, path) = (directory.version, directory.path)
        let limits = version.memoryLimitNames.compactMap { name in
            read("\(path)/\(name)").flatMap(ControlGroups.integer)
        }
        guard let limit = limits.min(),
            let used = read("\(path)/\(version.memoryUsageName)").flatMap(ControlGroups.integer)
        else { return nil }
        self.path = path
        let statistics = Self.statistics(read("\(path)/memory.stat") ?? "")
        // Version 1 tells the limits of groups that cannot be seen from within a container.
        limitByteCount = min(limit, statistics["hierarchical_memory_limit"] ?? limit)
        usedByteCount = used
        cacheByteCount = version.memoryCacheNames.reduce(0) { $0 + max(0, statistics[$1] ?? 0) }
    }

    private static func statistics(_ text: String) -> [String: Int] {
        var values: [String: Int] = [:]
        for line in text.split(separator: "\n") {
            let words = line.split(separator: " ")
            guard words.count == 2, let value = Int(words[1]) else { continue }
            values[String(words[0])] = value
        }
        return values
    }
}

extension ControlGroups.Version {
    /// The smallest of them counts.
    fileprivate var memoryLimitNames: [String] {
        switch self {
        case .one: ["memory.limit_in_bytes"]
        // Above the second one a group is held up so much that it stands still.
        case .two: ["memory.max", "memory.high"]
        }
    }

    fileprivate var memoryUsageName: String {
        switch self {
        case .one: "memory.usage_in_bytes"
        case .two: "memory.current"
        }
    }

    /// The cache of files that were read, which the kernel drops when memory is needed. Files on a tmpfs are
    /// not in these lists.
    fileprivate var memoryCacheNames: [String] {
        switch self {
        case .one: ["total_active_file", "total_inactive_file"]
        case .two: ["active_file", "inactive_file"]
        }
    }
}
