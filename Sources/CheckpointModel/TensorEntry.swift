/// One tensor of a checkpoint: what it is, and where its bytes lie.
///
/// Invariant, kept by whoever makes one: `range.byteCount` is the dense size of `shape` in `dtype`.
public struct TensorEntry: Hashable, Sendable {
    public let name: String
    public let dtype: DType
    public let shape: Shape
    /// The shard that holds the bytes, by its place in ``Catalog/shards``.
    public let shard: Int
    /// Where the bytes lie in the data section of that shard.
    public let range: ByteRange

    public init(name: String, dtype: DType, shape: Shape, shard: Int, range: ByteRange) {
        self.name = name
        self.dtype = dtype
        self.shape = shape
        self.shard = shard
        self.range = range
    }
}
