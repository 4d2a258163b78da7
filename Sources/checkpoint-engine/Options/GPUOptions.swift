import ArgumentParser
import CheckpointEngine

extension GPUConfiguration.Device: CommandValue {}
extension GPUConfiguration.Exchange: CommandValue {}

/// Flags about GPUs, the same for `update`, `serve` and `bench`.
struct GPUOptions: ParsableArguments {
    @Option(
        name: .customLong("device"),
        help: Variables.help(
            "device",
            "Where the engines' workers are: cuda, host (the CPU), or auto (the default), which is "
                + "cuda where this process sees a GPU.", "device"))
    var device: GPUConfiguration.Device?

    @Option(
        name: .customLong("gather-transport"),
        help: Variables.help(
            "gather-transport",
            "How GPUs of one host exchange what each has fetched: peer copies (the default) or "
                + "nccl.", "transport"))
    var exchange: GPUConfiguration.Exchange?

    @Option(
        name: .customLong("cuda-library"),
        help: Variables.help(
            "cuda-library", "The file of CUDA's driver library (default: libcuda.so.1).", "file"),
        completion: .file())
    var cudaLibrary: PathValue?

    @Option(
        name: .customLong("nccl-library"),
        help: Variables.help(
            "nccl-library",
            "The file of the NCCL library; the default is the system's libnccl.so.2, else the one "
                + "inside an installed Python package.", "file"),
        completion: .file())
    var ncclLibrary: PathValue?

    @Option(
        name: .customLong("pin-threads"),
        help: Variables.help(
            "pin-threads", "Threads that pin memory for GPUs; the default follows the cores.",
            "count"))
    var pinThreads: CountValue?

    @Flag(
        name: .customLong("release-gpu-memory"), inversion: .prefixedNo,
        help: Variables.help(
            "release-gpu-memory",
            "Give GPU memory and communicators back after each update instead of keeping them for the "
                + "next one (default: no)."))
    var releasesMemory: Bool?

    func configuration(_ variables: Variables) throws -> GPUConfiguration {
        GPUConfiguration(
            device: try variables.value(device, "device") ?? .auto,
            exchange: try variables.value(exchange, "gather-transport") ?? .peer,
            cudaLibraryNames: try variables.value(cudaLibrary, "cuda-library").map { [$0.path] }
                ?? GPUConfiguration.cudaLibraryNamesDefault,
            ncclLibraryNames: try variables.value(ncclLibrary, "nccl-library").map { [$0.path] }
                ?? GPUConfiguration.ncclLibraryNamesDefault + PythonLibraries.nccl(variables),
            releasesMemory: try variables.isOn(releasesMemory, "release-gpu-memory"),
            pinThreadCount: try variables.value(pinThreads, "pin-threads")?.count)
    }
}
