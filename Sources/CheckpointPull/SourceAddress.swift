/// A daemon that checkpoints are read from.
public struct SourceAddress: Hashable, Sendable {
    /// `http://host:port`, without a path.
    public let url: String
    /// What it is sent as a bearer token; `nil` sends none.
    public let token: String?

    public static let urlByteCountMax = 1024

    /// Fails when `url` is not an HTTP URL of host and port alone.
    public init?(url: String, token: String? = nil) {
        var text = Substring(url)
        while text.hasSuffix("/") { text = text.dropLast() }
        let rest = text.dropFirst("http://".count)
        guard url.utf8.count <= Self.urlByteCountMax, text.hasPrefix("http://"), !rest.isEmpty,
            rest.utf8.allSatisfy(Self.isAllowed)
        else { return nil }
        self.url = String(text)
        self.token = token
    }

    /// Bytes of host names, numbers and ports; no path, no user, no query.
    private static func isAllowed(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."), UInt8(ascii: "-"),
            UInt8(ascii: "_"), UInt8(ascii: ":"), UInt8(ascii: "["), UInt8(ascii: "]"):
            true
        default: false
        }
    }
}

extension SourceAddress: CustomStringConvertible {
    public var description: String { url }
}
