/// What the HTTP side of the daemon is told at its start; built once, in `main`.
public struct ControlConfiguration: Sendable {
    /// Where the server listens.
    public let address: ControlAddress
    /// The token that every request has to carry; `nil` asks for none.
    public let bearerToken: BearerToken?
    /// The version that `GET /v1/version` and the metrics tell.
    public let version: String
    /// The most bytes that a request's body may have.
    public let bodyByteCountMax: Int

    /// 4 MiB: a list of some ten thousand files.
    public static let bodyByteCountDefault = 4 << 20

    public init(
        address: ControlAddress, bearerToken: BearerToken? = nil, version: String,
        bodyByteCountMax: Int = Self.bodyByteCountDefault
    ) {
        self.address = address
        self.bearerToken = bearerToken
        self.version = version
        self.bodyByteCountMax = bodyByteCountMax
    }
}
