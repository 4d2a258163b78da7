/// How the daemons of several hosts find each other.
public struct HostGroupConfiguration: Hashable, Sendable {
    /// Where host 0 listens.
    public let address: String
    public let port: Int
    /// How many hosts there are, and which one this is.
    public let hostCount: Int
    public let hostRank: Int
    /// The name of this host in messages.
    public let name: String
    /// What every host has to know to take part; `nil` where the network keeps others out.
    public let token: String?

    public init(
        address: String, port: Int, hostCount: Int, hostRank: Int, name: String, token: String?
    ) {
        self.address = address
        self.port = port
        self.hostCount = hostCount
        self.hostRank = hostRank
        self.name = name
        self.token = token
    }
}
