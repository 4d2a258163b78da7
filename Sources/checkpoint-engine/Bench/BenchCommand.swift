import ArgumentParser
import CheckpointDevice
import CheckpointEngine
import CheckpointReference
import Logging

extension ModelShapes.Model: CommandValue {}

/// `checkpoint-engine bench`: updates of reference workers with weights of a model's shapes, measured.
struct BenchCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "bench",
        abstract: "Measure updates on this machine, with the shapes of a known model.",
        discussion: """
            Writes a checkpoint of random bytes with a model's real tensors, registers it, starts \
            engines whose workers are processes that copy their tensor-parallel slices, updates \
            them several times, and compares every byte that the workers hold with the files \
            after each update. Workers are on GPUs where there are some, else on the CPU. Rates \
            are bytes of the checkpoint in a second, 1 GB as 10^9 bytes. Everything that it made \
            is removed in the end, also after Ctrl-C.

            A whole model on two GPUs:

              checkpoint-engine bench --model qwen3-32b --tensor-parallel 2

            Two engines of four GPUs each, figures and a picture for later:

              checkpoint-engine bench --model qwen3-30b-a3b --tensor-parallel 4 \\
                --data-parallel 2 --json bench.json --trace bench.svg

            A short run without a GPU:

              checkpoint-engine bench --model small --device host
            """)

    @Option(
        name: .customLong("model"),
        help: Variables.help(
            "model",
            "The model whose shapes are used: qwen3-32b (the default), qwen3-30b-a3b, "
                + "deepseek-v3-fp8, or small, 0.3 GB for a quick try.", "model"))
    var model: ModelShapes.Model?

    @Option(
        name: .customLong("layers"),
        help: Variables.help(
            "layers", "Decoder layers of the checkpoint; the default is all of the model.",
            "count"))
    var layers: CountValue?

    @Option(
        name: .customLong("tensor-parallel"),
        help: Variables.help(
            "tensor-parallel", "Workers of each engine, which share the tensors (default: 2).",
            "count"))
    var tensorParallel: CountValue?

    @Option(
        name: .customLong("data-parallel"),
        help: Variables.help("data-parallel", "Engines (default: 1).", "count"))
    var dataParallel: CountValue?

    @Option(
        name: .customLong("updates"),
        help: Variables.help(
            "updates", "Updates that are measured, the first one included (default: 5).", "count"))
    var updates: CountValue?

    @Option(
        name: .customLong("directory"),
        help: Variables.help(
            "directory",
            "Where the checkpoint is written: in shared memory it is used in place, elsewhere it "
                + "is read (default: /dev/shm).", "dir"),
        completion: .directory)
    var directory: PathValue?

    @Option(
        name: .customLong("seed"),
        help: Variables.help("seed", "Decides the bytes of the checkpoint (default: 0).", "number"))
    var seed: SeedValue?

    @Option(
        name: .customLong("json"),
        help: Variables.help("json", "Write all figures to this file, as JSON.", "file"),
        completion: .file())
    var jsonFile: PathValue?

    @Option(
        name: .customLong("trace"),
        help: Variables.help(
            "trace",
            "Write what the last update did when to this file: a picture if its name ends in "
                + ".svg, else a Chrome trace, which Perfetto opens.", "file"),
        completion: .file())
    var traceFile: PathValue?

    @Flag(
        name: .customLong("verify"), inversion: .prefixedNo,
        help: Variables.help(
            "verify", "Compare every byte after each update (default: yes)."))
    var verifies: Bool?

    @OptionGroup var engineOptions: EngineOptions

    func run() async throws {
        let variables = Variables.process
        let order = try benchOrder(variables)
        let configuration = try engineOptions.configuration(variables)
        let signals = try StopSignals.install()
        let files = try PrivateDirectory(parent: order.directory, prefix: PoolNames.benchPrefix)
        let memory = try PrivateDirectory(
            parent: configuration.sharedMemoryDirectory, prefix: PoolNames.benchPrefix)
        defer {
            files.remove()
            memory.remove()
        }
        let engine = try CheckpointEngine(
            configuration: configuration,
            logger: Logger(label: "bench") { _ in SwiftLogNoOpLogHandler() })
        let run = BenchRun(
            order: order, engine: engine, configuration: configuration, files: files.path,
            memory: memory.path)
        let outcome: StopSignals.Outcome<Void>
        do {
            outcome = try await StopSignals.guarding(
                signals, cancels: true, stop: { await run.stop() }, work: { try await run.run() })
        } catch {
            await engine.shutDown()
            throw error
        }
        await engine.shutDown()
        if case .signalled(let number) = outcome { throw ExitCode(128 + number) }
    }

    private func benchOrder(_ variables: Variables) throws -> BenchOrder {
        let model = try variables.value(model, "model") ?? .qwen3Dense
        let jsonFile = try variables.file(jsonFile, "json")
        let traceFile = try variables.file(traceFile, "trace")
        try OutputFile.checkDistinct(jsonFile, traceFile)
        return BenchOrder(
            model: model,
            layers: try variables.value(layers, "layers")?.count ?? model.layerCount,
            tensorParallel: try variables.value(tensorParallel, "tensor-parallel")?.count ?? 2,
            dataParallel: try variables.value(dataParallel, "data-parallel")?.count ?? 1,
            updates: try variables.value(updates, "updates")?.count ?? 5,
            directory: try variables.value(directory, "directory")?.path ?? "/dev/shm",
            seed: try variables.value(seed, "seed")?.seed ?? 0,
            jsonFile: jsonFile, traceFile: traceFile,
            verifies: try variables.isOn(verifies, "verify", default: true))
    }
}
