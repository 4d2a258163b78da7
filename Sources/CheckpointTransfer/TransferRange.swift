/// Bytes to fetch: from where at the peer, and where to put them.
public struct TransferRange: Sendable, Hashable {
    /// An address in a writable mapping of the agent here.
    public let local: UInt
    /// An address in a mapping of the peer's agent.
    public let remote: UInt
    public let byteCount: Int

    public init(local: UInt, remote: UInt, byteCount: Int) {
        self.local = local
        self.remote = remote
        self.byteCount = byteCount
    }
}
