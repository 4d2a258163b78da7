/// What the HTTP side of the daemon is told at its start; built once, in `main`.
public struct ControlConfiguration: Sendable {
    /// Where the server listens.
    public let address: ControlAddress
    /// Who may call.
    public let access: ControlAccess
    /// Further names, as `HOST` or `HOST:PORT`, under which clients may call a daemon that asks for no
    /// token.
    public let hostNames: [String]
    /// The engines that updates may call.
    public let engines: EngineAllowList
    /// The descriptors that the process may open; a part of them is for connections.
    public let descriptorCountMax: Int
    /// The version that `GET /v1/version` and the metrics tell.
    public let version: String
    /// The most bytes that a request's body may have.
    public let bodyByteCountMax: Int

    /// What Linux allows a process that asks for no more.
    public static let descriptorCountDefault = 1024
    /// 4 MiB: a list of some ten thousand files.
    public static let bodyByteCountDefault = 4 << 20

    public init(
        address: ControlAddress, access: ControlAccess = .everyone, hostNames: [String] = [],
        engines: EngineAllowList = .standard, descriptorCountMax: Int = Self.descriptorCountDefault,
        version: String,
        bodyByteCountMax: Int = Self.bodyByteCountDefault
    ) {
        self.address = address
        self.access = access
        self.hostNames = hostNames
        self.engines = engines
        self.descriptorCountMax = descriptorCountMax
        self.version = version
        self.bodyByteCountMax = bodyByteCountMax
    }
}
