import ArgumentParser
import CheckpointControl

/// Engines that updates may call.
struct EnginePatternValue: CommandValue {
    static let rule = EngineAllowList.Pattern.rule
    let pattern: EngineAllowList.Pattern

    init?(argument: String) {
        guard let pattern = EngineAllowList.Pattern(argument) else { return nil }
        self.pattern = pattern
    }
}
