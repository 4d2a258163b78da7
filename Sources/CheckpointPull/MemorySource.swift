/// A process of which only the addresses of its memory are known: it gives no leases and no checksums, so that
/// nobody notices when its bytes change. Servers of PyPI's package are such sources.
public struct MemorySource: Hashable, Sendable {
    /// Where its transfer engine is reached, "host:port".
    public let session: String
    /// The address of each shard that it has, by the shard's place in the catalog.
    public let addresses: [Int: UInt]

    public init(session: String, addresses: [Int: UInt]) {
        self.session = session
        self.addresses = addresses
    }
}
