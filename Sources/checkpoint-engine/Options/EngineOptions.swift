import ArgumentParser
import CheckpointControl
import CheckpointEngine
import CheckpointFiles
import CheckpointModel

/// Flags about the engine inside this process, the same for `update` and `serve`.
struct EngineOptions: ParsableArguments {
    @Option(
        name: .customLong("bucket-size"),
        help: Variables.help(
            "bucket-size",
            "The most bytes that a worker loads at once, for example 512MiB (the default); on "
                + "GPUs half of the memory that buckets follow one another in.",
            "bytes"))
    var bucketSize: ByteCountValue?

    @Option(
        name: .customLong("read-threads"),
        help: Variables.help(
            "read-threads", "Threads that read files from disk; the default follows the cores.",
            "count"))
    var readThreads: CountValue?

    @Option(
        name: .customLong("memory-limit"),
        help: Variables.help(
            "memory-limit",
            "The most shared memory that checkpoints may take; the default is what the machine has.",
            "bytes"))
    var memoryLimit: ByteCountValue?

    @Option(
        name: .customLong("shared-memory-dir"),
        help: Variables.help(
            "shared-memory-dir",
            "The tmpfs that checkpoints are put on. Engine workers have to see it under the same "
                + "path (default: /dev/shm).", "dir"),
        completion: .directory)
    var sharedMemoryDirectory: PathValue?

    @Option(
        name: .customLong("runtime-dir"),
        help: Variables.help(
            "runtime-dir",
            "Where the private directory for worker sockets is made. Engine workers have to see it "
                + "under the same path (default: /tmp).", "dir"),
        completion: .directory)
    var runtimeDirectory: PathValue?

    @OptionGroup var zeroMQOptions: ZeroMQOptions

    @OptionGroup var gpuOptions: GPUOptions

    @OptionGroup var hostOptions: HostOptions

    @OptionGroup var tokenOptions: EngineTokenOptions

    @OptionGroup var transferOptions: TransferOptions

    /// `listening` is where the process takes requests, `nil` for one that takes none; `roots` are where
    /// files may lie.
    func configuration(
        _ variables: Variables, listening: ControlAddress? = nil, roots: FileRoots = .everywhere
    ) throws -> EngineConfiguration {
        let bucket = try variables.value(bucketSize, "bucket-size")?.byteCount
        return EngineConfiguration(
            sharedMemoryDirectory: try Self.directory(
                variables.value(sharedMemoryDirectory, "shared-memory-dir"), "/dev/shm"),
            runtimeDirectory: try runtimePath(variables),
            memoryByteCountMax: try variables.value(memoryLimit, "memory-limit")?.byteCount,
            readThreadCount: try variables.value(readThreads, "read-threads")?.count,
            bucketByteCountMax: bucket ?? EngineConfiguration.bucketByteCountDefault,
            zeroMQLibraryNames: try zeroMQOptions.libraryNames(variables),
            gpu: try gpuOptions.configuration(variables),
            hosts: try hostOptions.configuration(variables),
            engineToken: try tokenOptions.token(variables),
            pull: try transferOptions.configuration(variables, listening: listening),
            fileRoots: roots)
    }

    /// Where sockets and what else lasts as long as the process go.
    func runtimePath(_ variables: Variables) throws -> String {
        try Self.directory(variables.value(runtimeDirectory, "runtime-dir"), "/tmp")
    }

    /// Workers open paths below it, so it has to be absolute.
    private static func directory(_ given: PathValue?, _ fallback: String) throws -> String {
        guard let given else { return fallback }
        guard given.path.startsExactly(with: "/") else {
            throw ValidationError(
                "The directory '\(given.path)' is not an absolute path; engine workers in other "
                    + "working directories could not find it.")
        }
        return given.path
    }
}
