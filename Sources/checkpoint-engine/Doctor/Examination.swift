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

    let configuration: EngineConfiguration
    /// Files of the NCCL library inside Python packages.
    let ncclNames: [String]

    func run() -> [Finding] {
        [
            zeroMQ(), cuda(), nccl(), gpus(), sharedMemory(), machineMemory(),
            lockedMemory(), openFiles(), runtimeDirectory(),
        ] + leftovers()
    }

    private func leftovers() -> [Finding] {
        var parents = [configuration.sharedMemoryDirectory]
        if configuration.runtimeDirectory != configuration.sharedMemoryDirectory {
            parents.append(configuration.runtimeDirectory)
        }
        let paths = parents.flatMap {
            PrivateDirectory.leftovers(parent: $0, prefix: PoolNames.prefix)
        }
        guard !paths.isEmpty else {
            return [Finding("leftovers", .ok, "no files of killed processes")]
        }
        return paths.map {
            Finding(
                "leftovers", .warn, "\($0) belongs to a process that was killed",
                remedy: "the next update or serve of this user removes it")
        }
    }
}
