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
    /// In the order of their shards and offsets, or in that of delivery.
    public let tensors: [TensorEntry]
    /// Bytes of all tensors together.
    public let byteCount: Int

    /// Why there is no catalog of these shards and tensors.
    public struct Flaw: Error, Hashable, CustomStringConvertible {
        public let description: String
    }

    /// Checks that every tensor lies in its shard and that all bytes can be counted, so that no sum over shards or
    /// tensors can overflow. That names are unique is checked by the caller, who knows where they come from.
    public init(shards: [Shard], tensors: [TensorEntry]) throws(Flaw) {
        guard ByteCount.sum(shards.lazy.map(\.byteCount)) != nil else {
            throw Flaw(
                description: "the \(shards.count) shards have more than "
                    + "\(ByteCount.range.upperBound) bytes together")
        }
        for tensor in tensors {
            guard shards.indices.contains(tensor.shard),
                tensor.range.end <= shards[tensor.shard].byteCount
            else {
                throw Flaw(
                    description:
                        "the tensor \(tensor.name) lies outside of its shard \(tensor.shard)")
            }
        }
        guard let byteCount = ByteCount.sum(tensors.lazy.map(\.range.byteCount)) else {
            throw Flaw(
                description: "the \(tensors.count) tensors have more than "
                    + "\(ByteCount.range.upperBound) bytes together")
        }
        self.init(shards: shards, tensors: tensors, byteCount: byteCount.value)
    }

    private init(shards: [Shard], tensors: [TensorEntry], byteCount: Int) {
        self.shards = shards
        self.tensors = tensors
        self.byteCount = byteCount
    }

    /// The same with its tensors in the order of `places`, which names each of them once.
    public func ordered(_ places: [Int]) -> Catalog {
        precondition(places.count == tensors.count, "every tensor keeps a place")
        return Catalog(
            shards: shards, tensors: places.map { tensors[$0] }, byteCount: byteCount)
    }

    /// Tensors by dtype, for summaries.
    public var countByDType: [DType: Int] {
        tensors.reduce(into: [:]) { $0[$1.dtype, default: 0] += 1 }
    }
}
