/// Where the daemon listens for HTTP.
public enum ControlAddress: Hashable, Sendable, CustomStringConvertible {
    /// A host name or numeric address; port zero takes a free one.
    case tcp(host: String, port: Int)
    /// The path of a unix socket, at most ``UnixSocketFile/pathByteCountMax`` bytes long.
    case unix(path: String)

    /// Whether only processes of this machine can reach it.
    public var isLocal: Bool {
        switch self {
        case .unix: true
        case .tcp(let host, _): Self.isLoopback(host)
        }
    }

    /// `localhost`, `::1` and `127.0.0.0/8`; any other name may resolve to an outside address.
    private static func isLoopback(_ host: String) -> Bool {
        if host == "localhost" || host == "::1" { return true }
        let parts = host.split(separator: ".", omittingEmptySubsequences: false)
        return parts.count == 4 && parts[0] == "127"
            && parts.allSatisfy { $0.utf8.allSatisfy(Self.isDigit) && UInt8($0) != nil }
    }

    private static func isDigit(_ byte: UInt8) -> Bool {
        (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
    }

    public var description: String {
        switch self {
        case .unix(let path): path
        case .tcp(let host, let port): host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)"
        }
    }
}
