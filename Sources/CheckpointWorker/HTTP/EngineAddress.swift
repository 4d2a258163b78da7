public import CheckpointModel

/// The HTTP server of one engine instance, and how requests to it are written.
public struct EngineAddress: Hashable, Sendable, CustomStringConvertible {
    /// `http://HOST:PORT`, without a path or a trailing slash.
    public let origin: String
    /// The path that starts a reload.
    public let updatePath: String
    public let unixSocketPath: String?
    public let kind: EngineKind

    /// Takes `http[s]://HOST[:PORT][/PATH]`; without a path the update goes to the one of its kind.
    public init(updateURL: String, unixSocketPath: String? = nil, kind: EngineKind = .vllm)
        throws(WorkerError)
    {
        let schemes = ["http://", "https://"]
        guard let scheme = schemes.first(where: updateURL.hasPrefix) else {
            throw WorkerError(
                .invalidArgument,
                "the engine's URL \(updateURL) does not start with http:// or https://")
        }
        let rest = updateURL.dropFirst(scheme.count)
        let host = rest.prefix { $0 != "/" }
        let path = rest.dropFirst(host.count)
        let allowed = updateURL.utf8.allSatisfy { (0x21...0x7e).contains($0) }
        guard !host.isEmpty, allowed, !host.contains("@"), !rest.contains("?"), !rest.contains("#")
        else {
            throw WorkerError(
                .invalidArgument,
                "the engine's URL \(updateURL) is not of the form http://HOST:PORT/PATH")
        }
        if let unixSocketPath, !unixSocketPath.hasPrefix("/") {
            throw WorkerError(
                .invalidArgument,
                "the engine's unix socket \(unixSocketPath) is not an absolute path")
        }
        self.origin = scheme + host
        self.updatePath = path.isEmpty || path == "/" ? kind.calls.updatePathDefault : String(path)
        self.unixSocketPath = unixSocketPath
        self.kind = kind
    }

    /// What messages call the engine.
    public var description: String {
        guard let unixSocketPath else { return origin }
        return "unix:\(unixSocketPath)"
    }

    /// Whether its workers may come back for the weights within one update.
    public var repeatsSessions: Bool { kind.calls.repeatsSessions }

    /// The URL of `path` in the form of async-http-client, which knows `http+unix`.
    func url(_ path: String) -> String {
        guard let unixSocketPath else { return origin + path }
        return "http+unix://" + Self.percentEncoded(unixSocketPath) + path
    }

    static func percentEncoded(_ text: String) -> String {
        var result = ""
        for byte in text.utf8 {
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "."),
                UInt8(ascii: "_"):
                result.append(Character(UnicodeScalar(byte)))
            default:
                let digits = String(byte, radix: 16, uppercase: true)
                result += digits.count == 1 ? "%0\(digits)" : "%\(digits)"
            }
        }
        return result
    }
}
