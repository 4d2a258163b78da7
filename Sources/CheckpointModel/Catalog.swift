/// The validated contents of one checkpoint: its shards and its tensors. Names are unique.
public struct Catalog: Hashable, Sendable {
    /// One safetensors file of the checkpoint, header left out.
    public struct Shard: Hashable, Sendable {
        /// The last component of the file's path.
        public let name: String
        /// Bytes of the data section.
        public let byteCount: Int

        public init(name: String, byteCount: Int) {
            self.name = name
            self.byteCount = byteCount
        }
    }

    public let shards: [Shard]
    /// Ordered by shard, then by offset.
    public let tensors: [TensorEntry]
    /// Bytes of all tensors together.
    public let byteCount: Int

    /// Takes shards and tensors that were validated by the caller; counts the bytes.
    public init(shards: [Shard], tensors: [TensorEntry]) {
        self.shards = shards
        self.tensors = tensors
        self.byteCount = tensors.reduce(0) { $0 + $1.range.byteCount }
    }

    /// Tensors by dtype, for summaries.
    public var countByDType: [DType: Int] {
        tensors.reduce(into: [:]) { $0[$1.dtype, default: 0] += 1 }
    }
}
