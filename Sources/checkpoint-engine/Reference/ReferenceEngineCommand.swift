import ArgumentParser
import CheckpointDevice
import CheckpointEngine
import Hummingbird
import Logging

/// Serves the reference engine, for benchmarks and fault tests.
struct ReferenceEngineCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "reference-engine",
        abstract: "An engine without a model, for benchmarks and tests.", shouldDisplay: false)

    @Option(help: "Workers, as processes.") var workers = 2
    @Option(help: "The unix socket to serve on.") var uds: String
    @Option(help: "Where the workers keep their parameters: host or cuda.")
    var device = ReferenceDevice.Kind.host
    @Option(help: "The GPU of a worker; repeat it for each, the default is 0 and so on.")
    var gpu: [Int] = []
    @Option(help: "The file of CUDA's driver library.") var cudaLibrary: String?
    @OptionGroup var zeroMQOptions: ZeroMQOptions

    func run() async throws {
        guard gpu.isEmpty || gpu.count == workers else {
            throw ValidationError("There are \(gpu.count) '--gpu' for \(workers) workers.")
        }
        let signals = try StopSignals.install()
        let directory = try PrivateDirectory(parent: "/dev/shm", prefix: PoolNames.prefix)
        defer { directory.remove() }
        let engine = ReferenceEngine(
            workerCount: workers, memoryPrefix: "\(directory.path)/parameters",
            device: referenceDevice, zeroMQLibraryNames: try zeroMQOptions.libraryNames(.process))
        var logger = Logger(label: "reference-engine")
        // The framework calls an ordered stop an error.
        logger.logLevel = .critical
        let address = BindAddress.unixDomainSocket(path: uds)
        // A signal asks it to stop, as the daemon: that is no failure.
        _ = try await StopSignals.guarding(
            signals, cancels: true, stop: {},
            work: { [logger] in try await engine.run(address: address, logger: logger) })
    }

    private var referenceDevice: ReferenceDevice {
        switch device {
        case .host: .host
        case .cuda:
            .cuda(
                gpus: gpu.isEmpty ? Array(0..<workers) : gpu,
                libraryNames: cudaLibrary.map { [$0] }
                    ?? GPUConfiguration.cudaLibraryNamesDefault)
        }
    }
}
