import ArgumentParser
import CheckpointModel

/// The name of a checkpoint.
struct NameValue: CommandValue {
    static let rule = CheckpointName.rule
    let name: CheckpointName

    init?(argument: String) {
        guard let name = CheckpointName(argument) else { return nil }
        self.name = name
    }
}
