public import CheckpointModel
public import CheckpointTransfer

/// How bytes are exchanged with other hosts.
public struct PullConfiguration: Hashable, Sendable {
    /// How agents are started; each pull has its own beside those that others read from.
    public let agent: AgentConfiguration
    /// How many agents others read from, and how many each pull has; with RDMA one does.
    public let agentCount: Int
    /// The URL under which other hosts reach this daemon; `nil` where they cannot, so that nobody can read
    /// from here what is still arriving.
    public let advertisedURL: HTTPURL?

    /// Bytes of the ring that a checkpoint passes through that is not kept; less where there is less memory.
    public let ringByteCount: Int

    /// Whether checksums are computed when a checkpoint is there, instead of when the first reader asks.
    public let computesChecksumsAhead: Bool

    public static let ringByteCountDefault = 8 << 30

    public init(
        agent: AgentConfiguration = AgentConfiguration(host: "127.0.0.1", protocolName: .tcp),
        advertisedURL: HTTPURL? = nil, ringByteCount: Int = Self.ringByteCountDefault,
        computesChecksumsAhead: Bool = false, agentCount: Int = 1
    ) {
        self.agent = agent
        self.agentCount = agentCount
        self.advertisedURL = advertisedURL
        self.ringByteCount = ringByteCount
        self.computesChecksumsAhead = computesChecksumsAhead
    }
}
