import CheckpointDevice
import CheckpointEngine
import CheckpointWorker
import FoundationEssentials

/// Looks at the machine, with the eyes of an engine of the given configuration. Changes nothing.
struct Examination {
    /// Below this much, even small checkpoints do not fit. Containers have 64 MiB by default.
    static let sharedMemoryByteCountMin = 1 << 30
    /// A checkpoint of many shards needs one descriptor for each while it is read.
    static let fileCountMin = 1024

    /// Threads that read, pin, deliver and answer: a few for each core, and some for each worker.
    static var threadCountMin: Int { 64 + 4 * ProcessInfo.processInfo.activeProcessorCount }

    let configuration: EngineConfiguration

    func run() -> [Finding] {
        let gpus = cuda()
        return [zeroMQ()] + gpus + [
            nccl(), sharedMemory(), machineMemory(),
            lockedMemory(hasGPU: gpus.count > 1), openFiles(), threads(), runtimeDirectory(),
        ] + leftovers()
    }

    private func leftovers() -> [Finding] {
        var parents = [configuration.sharedMemoryDirectory]
        if configuration.runtimeDirectory != configuration.sharedMemoryDirectory {
            parents.append(configuration.runtimeDirectory)
        }
        let paths = parents.flatMap { parent in
            PoolNames.all.flatMap {
                PrivateDirectory.leftovers(parent: parent, prefix: $0)
            }
        }
        guard !paths.isEmpty else {
            return [Finding("leftovers", .ok, "no files of killed processes")]
        }
        return paths.map {
            Finding(
                "leftovers", .warn, "\($0) belongs to a process that was killed",
                remedy: "the next update, serve or demo of this user removes what its own kind left"
            )
        }
    }
}
