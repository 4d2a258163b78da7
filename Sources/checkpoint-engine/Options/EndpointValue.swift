import ArgumentParser

/// The URL of an engine's HTTP server.
struct EndpointValue: CommandValue {
    static let rule = "a URL such as http://127.0.0.1:8000"
    let url: String

    init?(argument: String) {
        let schemes = ["http://", "https://"]
        guard let scheme = schemes.first(where: argument.hasPrefix),
            let first = argument.dropFirst(scheme.count).first, first != "/",
            argument.utf8.count <= 4096, argument.utf8.allSatisfy({ (0x21...0x7E).contains($0) })
        else { return nil }
        self.url = argument
    }
}
