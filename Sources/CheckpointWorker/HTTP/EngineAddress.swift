public import CheckpointModel

/// The HTTP server of one engine instance, and how requests to it are written.
public struct EngineAddress: Hashable, Sendable, CustomStringConvertible {
    /// Bytes of a unix socket's path that the system takes.
    private static let socketPathByteCountMax = 107

    /// What all paths of the engine lie under: its server, or a place of a gateway.
    public let base: HTTPURL
    public let unixSocketPath: String?
    public let kind: EngineKind

    /// `url` is where the engine is, with or without the path of its kind that starts an update: what precedes
    /// that path is taken for all calls.
    public init(_ url: HTTPURL, unixSocketPath: String? = nil, kind: EngineKind = .vllm)
        throws(WorkerError)
    {
        if let unixSocketPath {
            guard unixSocketPath.startsExactly(with: "/"), !unixSocketPath.utf8.contains(0) else {
                throw WorkerError(
                    .invalidArgument,
                    "the engine's unix socket \(unixSocketPath) is not an absolute path")
            }
            guard unixSocketPath.utf8.count <= Self.socketPathByteCountMax else {
                throw WorkerError(
                    .invalidArgument,
                    "the path of the engine's unix socket \(unixSocketPath) has "
                        + "\(unixSocketPath.utf8.count) bytes; a socket's path has at most "
                        + "\(Self.socketPathByteCountMax)")
            }
        }
        base = url.removing(pathEnd: kind.calls.updatePath) ?? url
        self.unixSocketPath = unixSocketPath
        self.kind = kind
    }

    /// What messages call the engine.
    public var description: String {
        guard let unixSocketPath else { return base.description }
        return "unix:\(unixSocketPath)\(base.path)"
    }

    /// Whether its workers may come back for the weights within one update.
    public var repeatsSessions: Bool { kind.calls.repeatsSessions }

    /// The URL of `path` in the form of async-http-client, which knows `http+unix`.
    func url(_ path: String) -> String {
        let text = base.appending(path: path)
        guard let unixSocketPath else { return text }
        return "http+unix://" + Self.percentEncoded(unixSocketPath)
            + text.dropFirst(base.origin.description.utf8.count)
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
