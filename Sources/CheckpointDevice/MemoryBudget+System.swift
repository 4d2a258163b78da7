import Glibc

extension MemoryBudget {
    /// Reads the budget of this process now.
    public static func current() -> MemoryBudget {
        MemoryBudget(
            meminfo: text(of: "/proc/meminfo"),
            groupMax: text(of: "/sys/fs/cgroup/memory.max"),
            groupCurrent: text(of: "/sys/fs/cgroup/memory.current"),
            groupStat: text(of: "/sys/fs/cgroup/memory.stat"))
    }

    /// The first 16 KiB of a small text file of the kernel's.
    private static func text(of path: String) -> String? {
        // SAFETY: the bridged string lives for the call.
        let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var bytes = [UInt8](repeating: 0, count: 16 << 10)
        // SAFETY: the length passed is that of `bytes`, which outlives the call.
        let count = unsafe bytes.withUnsafeMutableBytes { buffer in
            unsafe read(descriptor, buffer.baseAddress, buffer.count)
        }
        guard count > 0 else { return nil }
        return String(decoding: bytes.prefix(count), as: UTF8.self)
    }
}
