import CheckpointModel
import CheckpointPlan
import CheckpointTesting
import Testing

struct UpdatePlanTests {
    @Test(arguments: 0..<50 as Range<UInt64>)
    func everyTensorIsDeliveredOnce(_ seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        let count = Int.random(in: 0...200, using: &generator)
        let catalog = RandomCatalog.make(tensorCount: count, shardCount: 3, using: &generator)
        let limit = Int.random(in: 1...4000, using: &generator)
        let plan = UpdatePlan(catalog: catalog, bucketByteCountMax: limit)

        #expect(plan.order.sorted() == Array(catalog.tensors.indices), "seed \(seed)")
        #expect(plan.byteCount == catalog.byteCount)
        var next = 0
        for bucket in plan.buckets {
            #expect(bucket.first == next && bucket.count > 0, "seed \(seed)")
            let bytes = plan.order[bucket.first..<(bucket.first + bucket.count)].reduce(0) {
                $0 + catalog.tensors[$1].range.byteCount
            }
            #expect(bytes == bucket.byteCount, "seed \(seed)")
            let payload = plan.order[bucket.first..<(bucket.first + bucket.count)].count {
                catalog.tensors[$0].range.byteCount > 0
            }
            #expect(bytes <= limit || payload == 1, "seed \(seed)")
            next += bucket.count
        }
        #expect(next == count)
    }

    @Test(arguments: 0..<20 as Range<UInt64>)
    func theDigestTellsPlansApart(_ seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        let catalog = RandomCatalog.make(tensorCount: 30, shardCount: 2, using: &generator)
        let plan = UpdatePlan(catalog: catalog, bucketByteCountMax: 500)
        #expect(plan == UpdatePlan(catalog: catalog, bucketByteCountMax: 500))
        let other = UpdatePlan(catalog: catalog, bucketByteCountMax: 1_000_000)
        #expect(plan.digest != other.digest, "seed \(seed)")

        var tensors = catalog.tensors
        let place = Int.random(in: tensors.indices, using: &generator)
        let old = tensors[place]
        tensors[place] = TensorEntry(
            name: old.name + "x", dtype: old.dtype, shape: old.shape, shard: old.shard,
            range: old.range)
        let renamed = UpdatePlan(
            catalog: try Catalog(shards: catalog.shards, tensors: tensors), bucketByteCountMax: 500)
        #expect(plan.digest != renamed.digest, "seed \(seed)")
    }

    @Test func modulesComeInTheOrderOfTheirNumbers() throws {
        let names = [
            "model.layers.10.mlp.up.weight", "model.layers.2.mlp.up.weight", "lm_head.weight",
            "model.layers.2.mlp.down.weight", "model.layers.02.mlp.up.weight",
            "model.layers.2_extra.weight", "model.layers.1.mlp.experts.11.up.weight",
            "model.layers.1.mlp.experts.9.up.weight",
        ]
        let catalog = try Self.catalog(names)
        let plan = UpdatePlan(catalog: catalog, bucketByteCountMax: 1)
        #expect(
            plan.order.map { catalog.tensors[$0].name } == [
                "lm_head.weight", "model.layers.1.mlp.experts.9.up.weight",
                "model.layers.1.mlp.experts.11.up.weight", "model.layers.2.mlp.down.weight",
                "model.layers.2.mlp.up.weight", "model.layers.2_extra.weight",
                "model.layers.02.mlp.up.weight", "model.layers.10.mlp.up.weight",
            ])
        #expect(plan.buckets.count == names.count)
    }

    @Test func aLargeTensorHasItsOwnBucket() throws {
        let catalog = try Self.catalog(["a", "b", "c"], byteCounts: [4, 100, 4])
        let plan = UpdatePlan(catalog: catalog, bucketByteCountMax: 16)
        #expect(plan.buckets.map(\.byteCount) == [4, 100, 4])
    }

    private static func catalog(_ names: [String], byteCounts: [Int]? = nil) throws -> Catalog {
        var offset = 0
        let tensors = try names.enumerated().map { index, name in
            let byteCount = byteCounts?[index] ?? 4
            defer { offset += byteCount }
            return TensorEntry(
                name: name, dtype: .u8, shape: try #require(Shape([byteCount])), shard: 0,
                range: try #require(ByteRange(offset: offset, byteCount: byteCount)))
        }
        return try Catalog(shards: [.init(name: "m", byteCount: offset)], tensors: tensors)
    }
}
