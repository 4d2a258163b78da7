import CheckpointControl
import CheckpointDevice
import CheckpointEngine
import FoundationEssentials

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
        guard let count = MemoryBudget.current().availableByteCount else {
            return Finding("memory", .warn, "the kernel does not tell how much is available")
        }
        return Finding("memory", .ok, "\(TextFormat.bytes(count)) available")
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
        switch ProcessLimits.current().soft("Max open files") {
        case .unlimited: return Finding(subject, .ok, "unlimited")
        case .value(let count) where count >= Self.fileCountMin:
            return Finding(subject, .ok, "at most \(count)")
        case .value(let count):
            return Finding(
                subject, .warn, "at most \(count)",
                remedy: "raise it: ulimit -n \(Self.fileCountMin), or LimitNOFILE= of the service")
        case nil: return Finding(subject, .info, "the limit cannot be read")
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
        // The private directory and the socket's name come behind it.
        let room = UnixSocketFile.pathByteCountMax - path.utf8.count
        guard room >= Self.socketNameByteCount else {
            return Finding(
                subject, .fail, "\(path) is too long for the paths of sockets",
                remedy: "name a shorter one with --runtime-dir")
        }
        return Finding(subject, .ok, path)
    }

    /// `/checkpoint-engine-UID-PID-RANDOM/` and the name of a socket.
    private static let socketNameByteCount = 72
}
