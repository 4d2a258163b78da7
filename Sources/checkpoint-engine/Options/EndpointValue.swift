import ArgumentParser
import CheckpointWorker

/// The URL of an engine's HTTP server.
struct EndpointValue: CommandValue {
    static let rule = "a URL such as http://127.0.0.1:8000"
    let url: String

    init?(argument: String) {
        guard argument.utf8.count <= 4096, (try? EngineAddress(updateURL: argument)) != nil
        else { return nil }
        self.url = argument
    }
}
