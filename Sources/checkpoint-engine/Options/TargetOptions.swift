import ArgumentParser
import CheckpointEngine
import CheckpointModel

/// Flags about the engines that get the weights, the same for `update` and `join`.
struct TargetOptions: ParsableArguments {
    static let nameDefault = "my-checkpoint-iter-0"

    @Option(
        name: .customLong("endpoint"),
        help: Variables.help(
            "endpoint",
            "The URL of an engine, with the path of its gateway where it is behind one. Repeat it for "
                + "several engines, in the order of their GPUs; the variable separates them by "
                + "commas.", "url"))
    var endpoints: [URLValue] = []

    @Option(
        name: .customLong("uds"),
        help: Variables.help(
            "uds",
            "The unix socket of an engine, used instead of its URL's host and port: one for all, "
                + "or one for each --endpoint.", "path"),
        completion: .file())
    var sockets: [PathValue] = []

    @Option(
        name: .customLong("checkpoint-name"),
        help: Variables.help(
            "checkpoint-name",
            "The name in messages and logs, and at the hosts that it is read from (default: "
                + "my-checkpoint-iter-0).", "name"))
    var checkpointName: NameValue?

    @Option(
        name: .customLong("inference-parallel-size"),
        help: Variables.help(
            "inference-parallel-size",
            "Workers of each engine; the default is what the engine tells.", "count"))
    var workerCount: CountValue?

    @Option(
        name: .customLong("ranks"),
        help: Variables.help(
            "ranks",
            "The GPUs of an engine's workers, as this host numbers them, separated by commas: one list "
                + "for each --endpoint, separated by slashes (default: the next ones).", "list"))
    var ranks: RanksValue?

    @Option(
        name: .customLong("timeout"),
        help: Variables.help("timeout", "The deadline of the update (default: 300).", "seconds"))
    var timeout: SecondsValue?

    @Option(
        name: .customLong("ready-timeout"),
        help: Variables.help(
            "ready-timeout",
            "How long to wait for the engines to be ready (default: as --timeout).", "seconds"))
    var readyTimeout: SecondsValue?

    @OptionGroup var controlOptions: ControlOptions

    func name(_ variables: Variables) throws -> CheckpointName {
        guard
            let name = try variables.value(checkpointName, "checkpoint-name")?.name
                ?? CheckpointName(Self.nameDefault)
        else { throw ValidationError("Missing expected option '--checkpoint-name'.") }
        return name
    }

    func readySeconds(_ variables: Variables) throws -> Double {
        try variables.value(readyTimeout, "ready-timeout")?.seconds ?? timeoutSeconds(variables)
    }

    func request(_ variables: Variables) throws -> UpdateRequest {
        UpdateRequest(
            instances: try instances(variables), timeoutSeconds: try timeoutSeconds(variables),
            pause: try variables.value(controlOptions.pause, "pause"),
            weightVersion: try variables.value(
                controlOptions.weightVersion, "weight-version")?.text,
            wakes: try variables.isOn(controlOptions.wakes, "wake"),
            nativeSender: try controlOptions.nativeSender(variables))
    }

    private func timeoutSeconds(_ variables: Variables) throws -> Double {
        let seconds = try variables.value(timeout, "timeout")?.seconds
        guard seconds ?? 1 > 0 else {
            throw ValidationError("The value '0' is invalid for '--timeout': expected more.")
        }
        return seconds ?? UpdateRequest.timeoutSecondsDefault
    }

    private func instances(_ variables: Variables) throws -> [EngineInstance] {
        let endpoints = try variables.values(endpoints, "endpoint").map { try $0.url("endpoint") }
        let sockets = try variables.values(sockets, "uds").map(\.path)
        let workers = try variables.value(workerCount, "inference-parallel-size")?.count
        let kind = try variables.value(controlOptions.kind, "engine") ?? .vllm
        let ranks = try variables.value(ranks, "ranks")?.lists
        guard !endpoints.isEmpty else {
            throw ValidationError(
                "Missing expected option '--endpoint' (or the variable "
                    + "\(Variables.name("endpoint"))).")
        }
        guard sockets.count <= 1 || sockets.count == endpoints.count else {
            throw ValidationError(
                "There are \(sockets.count) '--uds' for \(endpoints.count) '--endpoint': give one "
                    + "for all, or one for each.")
        }
        guard ranks?.count ?? endpoints.count == endpoints.count else {
            throw ValidationError(
                "'--ranks' has \(ranks?.count ?? 0) lists for \(endpoints.count) '--endpoint': give "
                    + "one for each.")
        }
        return endpoints.enumerated().map { index, endpoint in
            EngineInstance(
                updateURL: endpoint,
                unixSocketPath: sockets.count > 1 ? sockets[index] : sockets.first,
                workerCount: ranks?[index].count ?? workers, ranks: ranks?[index], kind: kind)
        }
    }
}
