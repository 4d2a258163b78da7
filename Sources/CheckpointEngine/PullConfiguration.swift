public import CheckpointTransfer

/// How bytes are exchanged with other hosts.
public struct PullConfiguration: Hashable, Sendable {
    /// How agents are started; each pull has one of its own beside the one that others read from.
    public let agent: AgentConfiguration
    /// The URL under which other hosts reach this daemon; `nil` where they cannot, so that nobody can read
    /// from here what is still arriving.
    public let advertisedURL: String?

    public init(
        agent: AgentConfiguration = AgentConfiguration(host: "127.0.0.1", protocolName: .tcp),
        advertisedURL: String? = nil
    ) {
        self.agent = agent
        self.advertisedURL = advertisedURL
    }
}
