public import CheckpointModel

/// Bytes of one shard's data section.
public struct ShardRange: Hashable, Sendable {
    /// The shard, by its place in ``Catalog/shards``.
    public let shard: Int
    public let range: ByteRange

    public init(shard: Int, range: ByteRange) {
        self.shard = shard
        self.range = range
    }
}
