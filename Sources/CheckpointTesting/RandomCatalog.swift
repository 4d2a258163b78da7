public import CheckpointModel

/// Makes catalogs that look like models: modules with numbers, many dtypes, empty tensors, scalars.
public enum RandomCatalog {
    /// A catalog of `tensorCount` tensors in `shardCount` shards; each shard is filled without holes.
    public static func make(
        tensorCount: Int, shardCount: Int, using generator: inout SeededGenerator
    ) -> Catalog {
        var ends = [Int](repeating: 0, count: max(1, shardCount))
        var tensors: [TensorEntry] = []
        for index in 0..<tensorCount {
            let shard = Int.random(in: 0..<ends.count, using: &generator)
            let dtype = DType.allCases.randomElement(using: &generator) ?? .bf16
            guard let shape = Shape(dimensions(dtype, using: &generator)),
                let byteCount = shape.byteCount(of: dtype),
                let range = ByteRange(offset: ends[shard], byteCount: byteCount)
            else { continue }
            ends[shard] = range.end
            let layer = Int.random(in: 0..<40, using: &generator)
            tensors.append(
                TensorEntry(
                    name: "model.layers.\(layer).block_\(index % 7).weight_\(index)", dtype: dtype,
                    shape: shape, shard: shard, range: range))
        }
        tensors.sort { ($0.shard, $0.range.offset) < ($1.shard, $1.range.offset) }
        let shards = ends.enumerated().map { index, end in
            Catalog.Shard(
                name: "model-\(index + 1)-of-\(ends.count).safetensors", byteCount: end)
        }
        guard let catalog = try? Catalog(shards: shards, tensors: tensors) else {
            preconditionFailure("shards end where their last tensor does")
        }
        return catalog
    }

    /// Up to three dimensions; the last one makes packed types fill whole bytes.
    private static func dimensions(_ dtype: DType, using generator: inout SeededGenerator) -> [Int]
    {
        let count = Int.random(in: 0...3, using: &generator)
        var dimensions = (0..<count).map { _ in Int.random(in: 0...9, using: &generator) }
        if dtype.bitWidth % 8 != 0 { dimensions.append(4) }
        return dimensions
    }
}
