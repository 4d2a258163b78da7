import ArgumentParser
import CheckpointControl

/// `HOST:PORT`, `[IPV6]:PORT`; port zero takes a free one.
struct ListenValue: CommandValue {
    static let rule = "HOST:PORT, for example 127.0.0.1:19731"
    let address: ControlAddress

    init?(argument: String) {
        guard let colon = argument.lastIndex(of: ":"),
            let port = UInt16(argument[argument.index(after: colon)...])
        else { return nil }
        var host = argument[..<colon]
        if host.hasPrefix("["), host.hasSuffix("]") {
            host = host.dropFirst().dropLast()
        } else if host.contains(":") {
            return nil
        }
        guard !host.isEmpty, host.utf8.count <= 255,
            host.utf8.allSatisfy({ (0x21...0x7E).contains($0) && $0 != UInt8(ascii: "/") })
        else { return nil }
        self.address = .tcp(host: String(host), port: Int(port))
    }
}
