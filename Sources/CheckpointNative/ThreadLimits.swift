import Glibc

/// What limits the number of threads of this process, for messages.
enum ThreadLimits {
    /// What a refused thread is told as; `errorNumber` is that of pthread_create.
    static func shortage(errorNumber: CInt) -> SystemShortage {
        let reason = errorNumber == EAGAIN ? "EAGAIN" : "error \(errorNumber)"
        let known = [userLimit, groupLimit, machineLimit].compactMap(\.self)
        let limits = known.isEmpty ? "" : ". The limits are " + known.joined(separator: ", ")
        return SystemShortage(
            "the system refuses this process a further thread (pthread_create: \(reason))"
                + "\(limits). End other processes, or raise the limit that is reached")
    }

    private static var userLimit: String? {
        var limit = rlimit()
        // SAFETY: the result is written to a variable that outlives the call.
        guard unsafe getrlimit(__rlimit_resource_t(__RLIMIT_NPROC.rawValue), &limit) == 0,
            limit.rlim_cur != rlim_t.max
        else { return nil }
        return "RLIMIT_NPROC (ulimit -u): \(limit.rlim_cur) processes and threads of this user"
    }

    /// The group, or one above it, that has the least room.
    private static var groupLimit: String? {
        let groups = folders(of: SystemFile.text("/proc/self/cgroup") ?? "").compactMap {
            folder -> (folder: String, max: Int, current: Int)? in
            guard let max = number("\(folder)/pids.max"),
                let current = number("\(folder)/pids.current")
            else { return nil }
            return (folder, max, current)
        }
        return groups.min { $0.max - $0.current < $1.max - $1.current }.map {
            "pids.max of the control group \($0.folder): \($0.max), of which \($0.current) are in use"
        }
    }

    private static var machineLimit: String? {
        number("/proc/sys/kernel/threads-max").map { "kernel.threads-max: \($0) on this machine" }
    }

    /// The folders of the control groups that count processes, from that of this process up to the root.
    ///
    /// Source: cgroups(7). A line of version 2 is `0::/path`, one of version 1 `4:pids:/path`.
    static func folders(of text: String) -> [String] {
        var folders: [String] = []
        for line in text.split(separator: "\n") {
            let fields = line.split(
                separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
            guard fields.count == 3 else { continue }
            let root: String
            if fields[1].split(separator: ",").contains("pids") {
                root = "/sys/fs/cgroup/pids"
            } else if fields[1].isEmpty {
                root = "/sys/fs/cgroup"
            } else {
                continue
            }
            var parts = fields[2].split(separator: "/")
            while true {
                folders.append(([root] + parts.map(String.init)).joined(separator: "/"))
                if parts.popLast() == nil { break }
            }
        }
        return folders
    }

    private static func number(_ path: String) -> Int? {
        SystemFile.text(path).flatMap { Int($0.prefix { $0 != "\n" }) }
    }
}
