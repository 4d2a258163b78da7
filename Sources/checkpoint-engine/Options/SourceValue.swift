import ArgumentParser
import CheckpointPull

/// The URL of a daemon that checkpoints are read from.
struct SourceValue: CommandValue {
    static let rule = "a daemon's URL such as http://10.0.0.7:19731"
    let url: String

    init?(argument: String) {
        guard let address = SourceAddress(url: argument) else { return nil }
        url = address.url
    }
}
