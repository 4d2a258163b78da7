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
}

extension EngineKind: CommandValue {}
extension PauseMode: CommandValue {}
