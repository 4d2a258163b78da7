import ArgumentParser
import CheckpointModel

/// Flags of `update` about what the engines are, and what they do besides taking weights.
struct ControlOptions: ParsableArguments {
    @Option(
        name: .customLong("engine"),
        help: Variables.help(
            "engine", "What the engines are: vllm (the default) or sglang.", "engine"))
    var kind: EngineKind?

    @Option(
        name: .customLong("engine-protocol"),
        help: Variables.help(
            "engine-protocol",
            "How weights get into the workers: worker-extension (the default), or vllm-native, which "
                + "needs no code of ours in a vLLM that runs with --weight-transfer-config "
                + "'{\"backend\":\"nccl\"}', and a GPU that no engine runs on.", "protocol"))
    var transfer: EngineTransfer?

    @Option(
        name: .customLong("sender-gpu"),
        help: Variables.help(
            "sender-gpu",
            "The GPU that sends with vllm-native, as this process numbers those that it sees "
                + "(default: 0).", "gpu"))
    var senderGPU: RankValue?

    @Option(
        name: .customLong("pause"),
        help: Variables.help(
            "pause",
            "Hold the engines' requests during the update: abort ends them, wait lets them end "
                + "first, keep lets them go on afterwards (default: requests are left alone).",
            "mode"))
    var pause: PauseMode?

    @Option(
        name: .customLong("weight-version"),
        help: Variables.help(
            "weight-version", "What the engines call the new weights from then on.", "text"))
    var weightVersion: TextValue?

    @Flag(
        name: .customLong("wake"), inversion: .prefixedNo,
        help: Variables.help(
            "wake",
            "Wake up engines that sleep: their weights before the update, the rest after it "
                + "(default: no)."))
    var wakes: Bool?

    /// The GPU that sends by vLLM's own transfer; `nil` for the worker extension.
    func nativeSender(_ variables: Variables) throws -> Int? {
        let transfer = try variables.value(transfer, "engine-protocol") ?? .workerExtension
        let gpu = try variables.value(senderGPU, "sender-gpu")?.rank
        switch transfer {
        case .vllmNative: return gpu ?? 0
        case .workerExtension:
            guard gpu == nil else {
                throw ValidationError("'--sender-gpu' needs '--engine-protocol vllm-native'.")
            }
            return nil
        }
    }
}

extension EngineKind: CommandValue {}
extension PauseMode: CommandValue {}
extension EngineTransfer: CommandValue {}
