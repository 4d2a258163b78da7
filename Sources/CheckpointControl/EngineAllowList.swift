import CheckpointEngine
import CheckpointModel
import Glibc

/// Which engines those who call the daemon may have it call: it does so with its own rights, and shows
/// the engines' key.
public struct EngineAllowList: Sendable {
    /// One kind of engines that may be called.
    public enum Pattern: Hashable, Sendable {
        /// Engines at loopback addresses.
        case loopback
        /// Engines on unix sockets that belong to the daemon's user.
        case ownSockets
        /// Engines at hosts whose names or addresses match; `port` is `nil` for every one.
        case host(Glob, port: Int?)
        /// Engines on unix sockets whose paths match.
        case socket(Glob)

        /// What a pattern has to look like, for error messages.
        public static let rule =
            "loopback, own-sockets, HOST, HOST:PORT, or a socket's absolute path, where * stands for "
            + "any characters but /"

        /// `nil` where the text breaks ``rule``.
        public init?(_ text: String) {
            guard (1...4096).contains(text.utf8.count),
                text.utf8.allSatisfy({ (0x21...0x7E).contains($0) })
            else { return nil }
            switch text {
            case "loopback": self = .loopback
            case "own-sockets": self = .ownSockets
            case _ where text.hasPrefix("/"): self = .socket(Glob(text))
            default:
                guard let (host, port) = Self.hostAndPort(text.lowercased()) else { return nil }
                self = .host(Glob(host), port: port)
            }
        }

        private static func hostAndPort(_ text: String) -> (String, Int?)? {
            guard !text.contains("/") else { return nil }
            let bracket = text.lastIndex(of: "]") ?? text.startIndex
            guard let colon = text[bracket...].lastIndex(of: ":") else { return (text, nil) }
            let host = text[..<colon]
            guard let port = UInt16(text[text.index(after: colon)...]), port > 0, !host.isEmpty,
                host.hasPrefix("[") || !host.contains(":")
            else { return nil }
            return (String(host), Int(port))
        }
    }

    /// Engines of the same machine and user.
    public static let standard = EngineAllowList([.loopback, .ownSockets])

    private let patterns: [Pattern]

    public init(_ patterns: [Pattern]) {
        self.patterns = patterns
    }

    /// - Throws: ``ControlError`` when none of the patterns matches the engine.
    func check(_ engine: EngineInstance) throws(ControlError) {
        if let path = engine.unixSocketPath { return try check(socket: path) }
        let address = engine.updateURL.address
        if patterns.contains(where: { Self.allows($0, address.host, address.port) }) { return }
        throw Self.refusal("the engine at \(address)")
    }

    private func check(socket path: String) throws(ControlError) {
        let place = "the engine's unix socket \(path.prefix(200))"
        guard path.hasPrefix("/") else {
            throw .invalid("\(place) has to be an absolute path, not a relative one")
        }
        if patterns.contains(where: { Self.allows($0, socket: path) }) { return }
        // Whose it is can be said of one that is there only.
        guard !patterns.contains(.ownSockets) || UnixSocketFile(path: path).isThere else {
            throw ControlError(
                .engine(.engineUnreachable),
                "\(place) is not there: start the engine, or name the socket that it listens on")
        }
        throw Self.refusal(place)
    }

    private static func refusal(_ place: String) -> ControlError {
        ControlError(
            .forbidden,
            "\(place) is none that this daemon calls; those on loopback and on unix sockets of its own "
                + "user (\(geteuid())) are, if it was told nothing else: name the engine with "
                + "--allow-engine when the daemon is started")
    }

    private static func allows(_ pattern: Pattern, socket path: String) -> Bool {
        switch pattern {
        case .loopback, .host: false
        case .ownSockets: UnixSocketFile(path: path).isOfThisUser
        case .socket(let glob): glob.matches(path)
        }
    }

    private static func allows(_ pattern: Pattern, _ host: NetworkHost, _ port: Int) -> Bool {
        switch pattern {
        case .ownSockets, .socket: false
        case .loopback: ControlAddress.tcp(host: host.text, port: port).isLocal
        case .host(let glob, let only): glob.matches(host.description) && (only ?? port) == port
        }
    }
}

/// A text in which `*` stands for any characters but a slash.
public struct Glob: Hashable, Sendable {
    private let parts: [[UInt8]]

    init(_ text: String) {
        parts = text.utf8.split(separator: UInt8(ascii: "*"), omittingEmptySubsequences: false)
            .map(Array.init)
    }

    func matches(_ text: String) -> Bool { Self.match(parts[...], Array(text.utf8)[...]) }

    /// Whether the bytes are the parts, with any bytes but slashes between them.
    private static func match(_ parts: ArraySlice<[UInt8]>, _ bytes: ArraySlice<UInt8>) -> Bool {
        guard let first = parts.first, bytes.starts(with: first) else { return parts.isEmpty }
        let rest = bytes.dropFirst(first.count)
        let others = parts.dropFirst()
        if others.isEmpty { return rest.isEmpty }
        let reach = rest.firstIndex(of: UInt8(ascii: "/")) ?? rest.endIndex
        return (rest.startIndex...reach).contains { match(others, rest[$0...]) }
    }
}
