import CheckpointModel
import CheckpointPlan
import CheckpointTesting
import Testing

struct GatherPlanTests {
    private static func plan(seed: UInt64, slotByteCountMax: Int) throws -> (Catalog, GatherPlan) {
        var generator = SeededGenerator(seed: seed)
        let catalog = RandomCatalog.make(tensorCount: 300, shardCount: 4, using: &generator)
        let budget = try RingBudget(
            byteCount: catalog.byteCount,
            largestByteCount: catalog.tensors.map(\.range.byteCount).max() ?? 0,
            slotByteCountMax: slotByteCountMax, freeByteCount: 1 << 40)
        return (catalog, GatherPlan(catalog: catalog, budget: budget))
    }

    @Test(arguments: 1...4)
    func theSharesOfABucketAreItsBytesOnce(_ gpuCount: Int) throws {
        let seed = UInt64.random(in: 0 ... .max)
        let (catalog, plan) = try Self.plan(seed: seed, slotByteCountMax: 1 << 16)
        var place = 0
        for (index, bucket) in plan.buckets.enumerated() {
            #expect(bucket.first == place)
            var filled = [Int](repeating: 0, count: plan.budget.byteCount)
            for gpu in 0..<gpuCount {
                let share = plan.share(gpu, of: gpuCount, in: index)
                for piece in plan.pieces(of: index, in: share) {
                    #expect(share.contains(piece.ringOffset) && piece.byteCount > 0)
                    for offset in 0..<piece.byteCount { filled[piece.ringOffset + offset] += 1 }
                }
            }
            for tensor in bucket.first..<(bucket.first + bucket.count) {
                let offset = plan.offsets[tensor]
                let count = catalog.tensors[tensor].range.byteCount
                #expect(offset % GatherPlan.tensorAlignment == 0)
                #expect(offset + count <= plan.budget.byteCount)
                #expect(filled[offset..<(offset + count)].allSatisfy { $0 == 1 }, "seed \(seed)")
            }
            #expect(filled.reduce(0, +) == bucket.byteCount)
            place += bucket.count
        }
        #expect(place == catalog.tensors.count)
    }

    @Test(arguments: [0, 1, 2, 3])
    func aPlaceIsFreeBeforeItIsTaken(_ seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        var offset = 0
        let tensors = try (0..<200).map { index in
            let count = Int.random(in: 0...(200 << 10), using: &generator)
            defer { offset += count }
            return TensorEntry(
                name: "\(index)", dtype: .u8, shape: try #require(Shape([count])), shard: 0,
                range: try #require(ByteRange(offset: offset, byteCount: count)))
        }
        let catalog = try Catalog(
            shards: [Catalog.Shard(name: "a", byteCount: offset)], tensors: tensors)
        let budget = try RingBudget(
            byteCount: offset, largestByteCount: 200 << 10, slotByteCountMax: 256 << 10,
            freeByteCount: 1 << 30)
        let plan = GatherPlan(catalog: catalog, budget: budget)
        #expect(plan.buckets.contains { $0.doneCountNeeded > 0 })
        for (index, bucket) in plan.buckets.enumerated() {
            #expect(bucket.doneCountNeeded <= index)
            #expect(bucket.ringOffset + bucket.spanByteCount <= plan.budget.byteCount)
            let range = bucket.ringOffset..<(bucket.ringOffset + bucket.spanByteCount)
            for other in plan.buckets[bucket.doneCountNeeded..<index] {
                let taken = other.ringOffset..<(other.ringOffset + other.spanByteCount)
                #expect(!range.overlaps(taken), "seed \(seed)")
            }
        }
    }

    @Test func piecesComeFromWhereTheTensorLies() throws {
        let (catalog, plan) = try Self.plan(seed: 7, slotByteCountMax: 1 << 14)
        for (index, bucket) in plan.buckets.enumerated() {
            let pieces = plan.pieces(of: index, in: 0..<plan.budget.byteCount)
            for tensor in bucket.first..<(bucket.first + bucket.count) {
                let entry = catalog.tensors[tensor]
                guard entry.range.byteCount > 0 else { continue }
                let offset = plan.offsets[tensor]
                let piece = try #require(
                    pieces.first {
                        ($0.ringOffset..<($0.ringOffset + $0.byteCount)).contains(offset)
                    })
                #expect(piece.shard == entry.shard)
                #expect(piece.sourceOffset + offset - piece.ringOffset == entry.range.offset)
            }
        }
    }

    @Test func anEmptyCatalogHasNoBuckets() throws {
        let budget = try RingBudget(
            byteCount: 0, largestByteCount: 0, slotByteCountMax: 1 << 20, freeByteCount: 1 << 30)
        #expect(
            GatherPlan(catalog: try Catalog(shards: [], tensors: []), budget: budget).buckets == [])
    }
}

struct RingBudgetTests {
    private static func budget(largest: Int, free: Int) throws -> [Int] {
        let budget = try RingBudget(
            byteCount: 20 << 30, largestByteCount: largest, slotByteCountMax: 512 << 20,
            freeByteCount: RingBudget.headroomByteCount + free)
        return [budget.byteCount >> 20, budget.bucketByteCount >> 20]
    }

    @Test func theRingFollowsFreeMemory() throws {
        #expect(try Self.budget(largest: 1 << 20, free: 8 << 30) == [1024, 256])
        #expect(try Self.budget(largest: 1 << 30, free: 8 << 30) == [2048, 256])
        #expect(try Self.budget(largest: 1 << 20, free: 512 << 20) == [512, 128])
        #expect(try Self.budget(largest: 1 << 30, free: 1 << 30) == [1024, 256])
        #expect(try Self.budget(largest: 1 << 20, free: 16 << 20) == [16, 4])
        #expect(throws: RingBudget.Shortage.self) {
            try Self.budget(largest: 1 << 30, free: 1 << 29)
        }
    }
}
