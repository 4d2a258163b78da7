import CheckpointDevice
import CheckpointEngine
import FoundationEssentials
import Glibc

/// Memory, limits and directories.
extension Examination {
    func sharedMemory() -> Finding {
        let path = configuration.sharedMemoryDirectory
        let subject = "shared memory"
        guard FileManager.default.isWritableFile(atPath: path) else {
            return Finding(
                subject, .fail, "\(path) is missing or not writable",
                remedy: "mount a tmpfs there, or name another with --shared-memory-dir")
        }
        let mount = MountTable.current().mount(of: path)
        guard let mount, mount.isMemory else {
            let type = mount?.type ?? "an unknown file system"
            return Finding(
                subject, .fail, "\(path) is on \(type), not on a tmpfs",
                remedy: "mount a tmpfs there, or name one with --shared-memory-dir")
        }
        guard let (free, total) = FileSystemSpace.of(path) else {
            return Finding(subject, .fail, "the size of \(path) cannot be read")
        }
        let detail = "\(path): \(TextFormat.bytes(free)) free of \(TextFormat.bytes(total))"
        guard free >= Self.sharedMemoryByteCountMin else {
            return Finding(
                subject, .warn, detail,
                remedy: "checkpoints have to fit: docker run --shm-size=64g, or "
                    + "mount -o remount,size=64g \(path)")
        }
        return Finding(subject, .ok, detail)
    }

    func machineMemory() -> Finding {
        let budget = MemoryBudget.current()
        guard let count = budget.availableByteCount else {
            return Finding("memory", .warn, "the kernel does not tell how much is available")
        }
        let available = "\(TextFormat.bytes(count)) available"
        switch budget.source {
        case .machine: return Finding("memory", .ok, available)
        case .group(let path, let limit):
            return Finding(
                "memory", .ok,
                "\(available): the control group \(path) allows \(TextFormat.bytes(limit)), files in "
                    + "shared memory included")
        }
    }

    func lockedMemory(hasGPU: Bool) -> Finding {
        let subject = "locked memory"
        switch ProcessLimits.current().soft("Max locked memory") {
        case .unlimited: return Finding(subject, .ok, "unlimited")
        case .value(let count) where hasGPU:
            return Finding(
                subject, .warn, "at most \(TextFormat.bytes(count))",
                remedy: "checkpoints are pinned for GPUs: ulimit -l unlimited, "
                    + "LimitMEMLOCK=infinity of the service, or docker run --ulimit memlock=-1")
        case .value(let count):
            return Finding(
                subject, .info, "at most \(TextFormat.bytes(count)): enough for engines on the CPU")
        case nil: return Finding(subject, .info, "the limit cannot be read")
        }
    }

    func openFiles() -> Finding {
        let subject = "open files"
        let needs = "\(Self.fileCountMin) are enough for most checkpoints"
        switch ProcessLimits.current().hard("Max open files") {
        case .unlimited: return Finding(subject, .ok, "unlimited")
        case .value(let count) where count >= Self.fileCountMin:
            return Finding(subject, .ok, "at most \(count); \(needs)")
        case .value(let count):
            return Finding(
                subject, .warn, "at most \(count); \(needs)",
                remedy: "raise the hard limit: ulimit -Hn \(Self.fileCountMin), LimitNOFILE= "
                    + "of the service, or docker run --ulimit nofile=\(Self.fileCountMin)")
        case nil: return Finding(subject, .info, "the limit cannot be read")
        }
    }

    /// Threads count as processes: for the user's limit, and for those of control groups.
    func threads() -> Finding {
        let subject = "threads"
        let needed = Self.threadCountMin
        let group = TaskBudget.current()
        if let free = group.availableCount, let path = group.path, free < needed {
            return Finding(
                subject, .warn, "\(path) allows \(free) more, and up to \(needed) are needed",
                remedy: "raise pids.max there: TasksMax= of the service, docker run --pids-limit, "
                    + "or podPidsLimit of the kubelet")
        }
        switch ProcessLimits.current().soft("Max processes") {
        case .value(let limit) where getuid() != 0:
            let used = OtherProcess.threadCountOfUser
            let detail =
                "at most \(limit) of this user, who has \(used); up to \(needed) are needed"
            guard limit - used < needed else { return Finding(subject, .ok, detail) }
            return Finding(
                subject, .warn, detail,
                remedy: "raise it: ulimit -u, or LimitNPROC= of the service")
        case .value, .unlimited, nil:
            let free = group.availableCount.map { "\($0) more are allowed" } ?? "no limit"
            return Finding(subject, .ok, "\(free); up to \(needed) are needed")
        }
    }

    func runtimeDirectory() -> Finding {
        let path = configuration.runtimeDirectory
        let subject = "runtime directory"
        guard FileManager.default.isWritableFile(atPath: path) else {
            return Finding(
                subject, .fail, "\(path) is missing or not writable",
                remedy: "make it, or name another with --runtime-dir")
        }
        let countMax = RuntimeDirectory.pathByteCountMax
        guard path.utf8.count <= countMax else {
            return Finding(
                subject, .fail,
                "\(path) has \(path.utf8.count) bytes, and at most \(countMax) leave room for the paths of "
                    + "sockets",
                remedy: "name a shorter one with --runtime-dir")
        }
        return Finding(subject, .ok, path)
    }
}
