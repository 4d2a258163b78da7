/// The name under which an agent is reached, "host:port", as a peer gave it.
enum AgentSession {
    private static let byteCountMax = 300

    /// Whether the text can be one: printable ASCII, a host and a port.
    static func isValid(_ text: String) -> Bool {
        let bytes = text.utf8
        guard bytes.count <= byteCountMax, bytes.allSatisfy({ $0 > 0x20 && $0 < 0x7F }),
            let colon = text.lastIndex(of: ":"), colon > text.startIndex
        else { return false }
        let port = text[text.index(after: colon)...]
        guard port.utf8.allSatisfy({ (0x30...0x39).contains($0) }), let number = Int(port) else {
            return false
        }
        return (1...65_535).contains(number)
    }
}
