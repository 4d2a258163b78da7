public import CheckpointModel

/// A daemon that checkpoints are read from.
public struct SourceAddress: Hashable, Sendable {
    /// Without a path.
    public let origin: HTTPURL
    /// What it is sent as a bearer token; `nil` sends none.
    public let token: String?

    public static let urlByteCountMax = 1024

    /// Takes `http://HOST:PORT`.
    public init(url: String, token: String? = nil) throws(AddressFlaw) {
        try self.init(try HTTPURL(url), token: token)
    }

    public init(_ url: HTTPURL, token: String? = nil) throws(AddressFlaw) {
        guard url.scheme == .http, url.path.isEmpty else {
            throw url.flaw("a daemon is at http://HOST:PORT, without a path")
        }
        guard url.description.utf8.count <= Self.urlByteCountMax else {
            throw url.flaw("it is longer than \(Self.urlByteCountMax) bytes")
        }
        origin = url
        self.token = token
    }

    /// The same for equal daemons.
    public var url: String { origin.description }
}

extension SourceAddress: CustomStringConvertible {
    public var description: String { url }
}
