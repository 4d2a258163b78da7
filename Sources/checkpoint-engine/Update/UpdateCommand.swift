import ArgumentParser
import CheckpointEngine

/// `checkpoint-engine update`: the whole job once.
struct UpdateCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "update",
        abstract: "Update running engines from a checkpoint, then exit.",
        discussion: """
            Waits until every engine is ready, reads the checkpoint into shared memory (files that \
            lie there already are used in place), hands all tensors to all workers, resets the \
            engines' prefix caches, and prints what it took. The exit code is 0 only if every \
            worker has committed the new weights.

            One engine:

              checkpoint-engine update --checkpoint-path /models/new \\
                --endpoint http://127.0.0.1:8000

            Two engines on one machine, in the order of their GPUs:

              checkpoint-engine update --checkpoint-path /models/new \\
                --endpoint http://127.0.0.1:8000 --endpoint http://127.0.0.1:8001

            An SGLang server, whose requests stand still meanwhile:

              checkpoint-engine update --checkpoint-path /models/new --engine sglang \\
                --endpoint http://127.0.0.1:30000 --pause keep --weight-version step-100

            From the memory of a host that serves it, for new engines:

              checkpoint-engine update --update-method p2p --source http://10.0.0.7:19731 \\
                --endpoint http://127.0.0.1:8000

            For scripts, with the status as JSON on standard output:

              checkpoint-engine update --checkpoint-path /dev/shm/step-100 --consume \\
                --endpoint http://127.0.0.1:8000 --timeout 60 --json
            """)

    @Option(
        name: .customLong("checkpoint-path"),
        help: Variables.help(
            "checkpoint-path",
            "The checkpoint: a directory, a model.safetensors.index.json or a .safetensors file.",
            "path"),
        completion: .file())
    var checkpointPath: PathValue?

    @Option(
        name: .customLong("update-method"),
        help: Variables.help(
            "update-method",
            "How the weights travel (default: broadcast): broadcast from this host's files or memory, p2p "
                + "out of the memory of the hosts that --source names, or all, both one after the other.",
            "method"))
    var method: UpdateMethod?

    @Option(
        name: .customLong("save-metas-file"),
        help: Variables.help(
            "save-metas-file", "Write the checkpoint's metas to this file, as JSON.", "file"),
        completion: .file())
    var metasFile: PathValue?

    @Option(
        name: .customLong("trace"),
        help: Variables.help(
            "trace",
            "Write what happened when on every GPU to this file: a picture if its name ends in "
                + ".svg, else a Chrome trace, which Perfetto opens.", "file"),
        completion: .file())
    var traceFile: PathValue?

    @Option(
        name: .customLong("sleep-time"),
        help: Variables.help(
            "sleep-time",
            "Keep the process and its checkpoint for so long after the update (default: 0).",
            "seconds"))
    var sleepTime: SecondsValue?

    @Flag(
        name: .customLong("consume"), inversion: .prefixedNo,
        help: Variables.help(
            "consume",
            "Delete the files that lie in shared memory, after the update has succeeded (default: "
                + "no)."))
    var consumes: Bool?

    @Flag(
        name: .customLong("json"), inversion: .prefixedNo,
        help: Variables.help(
            "json", "Print the final status as JSON instead of a table (default: no)."))
    var json: Bool?

    @OptionGroup var targetOptions: TargetOptions

    @OptionGroup var sourceOptions: SourceOptions

    @OptionGroup var engineOptions: EngineOptions

    @OptionGroup var logOptions: LogOptions

    func run() async throws {
        let variables = Variables.process
        guard let place = try engineOptions.hostOptions.siblings(variables) else {
            if let place = try engineOptions.hostOptions.place(variables) { tell(place, "") }
            return try await run(variables)
        }
        tell(
            place,
            place.localRank == 0
                ? ": does the work for \(place.localCount) local ranks" : ": waits for local rank 0"
        )
        try await TorchrunSiblings(place: place, variables: variables).run {
            try await run(variables)
        }
    }

    private func tell(_ place: TorchrunPlace, _ role: String) {
        Terminal.standardError.write(
            "under torchrun, local rank \(place.localRank)\(role) (\(place.text) from the environment; "
                + "--no-torchrun leaves them out)\n")
    }

    private func run(_ variables: Variables) async throws {
        let order = try updateOrder(variables)
        let configuration = try engineOptions.configuration(variables)
        // The command itself says how the update ended.
        let logger = try logOptions.logger(default: .critical, variables)
        try await EarlyResources.take()
        let signals = try StopSignals.install()
        let engine = try CheckpointEngine(configuration: configuration, logger: logger)
        let job = UpdateRun(engine: engine, order: order, hosts: configuration.hosts)
        let outcome: StopSignals.Outcome<Void>
        do {
            outcome = try await StopSignals.guarding(
                signals, cancels: true, stop: { await job.stop() }, work: { try await job.run() })
        } catch {
            await engine.shutDown()
            throw error
        }
        await engine.shutDown()
        if case .signalled(let number) = outcome { throw ExitCode(128 + number) }
    }
}
