import CheckpointModel
import CheckpointPlan
import CheckpointTesting
import Testing

struct GatherPlanTests {
    private static func plan(seed: UInt64, slotByteCountMax: Int) throws -> (Catalog, GatherPlan) {
        var generator = SeededGenerator(seed: seed)
        let catalog = RandomCatalog.make(tensorCount: 300, shardCount: 4, using: &generator)
        let budget = try SlotBudget(
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
            var filled = [Int](repeating: 0, count: bucket.spanByteCount)
            for gpu in 0..<gpuCount {
                let share = plan.share(gpu, of: gpuCount, in: index)
                for piece in plan.pieces(of: index, in: share) {
                    #expect(share.contains(piece.slotOffset) && piece.byteCount > 0)
                    for offset in 0..<piece.byteCount { filled[piece.slotOffset + offset] += 1 }
                }
            }
            for tensor in bucket.first..<(bucket.first + bucket.count) {
                let offset = plan.offsets[tensor]
                let count = catalog.tensors[tensor].range.byteCount
                #expect(offset % GatherPlan.tensorAlignment == 0)
                #expect(offset + count <= plan.budget.slotByteCount)
                #expect(filled[offset..<(offset + count)].allSatisfy { $0 == 1 }, "seed \(seed)")
            }
            #expect(filled.reduce(0, +) == bucket.byteCount)
            place += bucket.count
        }
        #expect(place == catalog.tensors.count)
    }

    @Test func piecesComeFromWhereTheTensorLies() throws {
        let (catalog, plan) = try Self.plan(seed: 7, slotByteCountMax: 1 << 14)
        for (index, bucket) in plan.buckets.enumerated() {
            let pieces = plan.pieces(of: index, in: 0..<bucket.spanByteCount)
            for tensor in bucket.first..<(bucket.first + bucket.count) {
                let entry = catalog.tensors[tensor]
                guard entry.range.byteCount > 0 else { continue }
                let offset = plan.offsets[tensor]
                let piece = try #require(
                    pieces.first {
                        ($0.slotOffset..<($0.slotOffset + $0.byteCount)).contains(offset)
                    })
                #expect(piece.shard == entry.shard)
                #expect(piece.sourceOffset + offset - piece.slotOffset == entry.range.offset)
            }
        }
    }

    @Test func anEmptyCatalogHasNoBuckets() throws {
        let budget = try SlotBudget(
            byteCount: 0, largestByteCount: 0, slotByteCountMax: 1 << 20, freeByteCount: 1 << 30)
        #expect(GatherPlan(catalog: Catalog(shards: [], tensors: []), budget: budget).buckets == [])
    }
}

struct SlotBudgetTests {
    private static let headroom = SlotBudget.headroomByteCount

    private static func budget(largest: Int, free: Int) throws -> [Int] {
        let budget = try SlotBudget(
            byteCount: 20 << 30, largestByteCount: largest, slotByteCountMax: 512 << 20,
            freeByteCount: headroom + free)
        return [budget.slotByteCount >> 20, budget.slotCount]
    }

    @Test func slotsFollowFreeMemory() throws {
        #expect(try Self.budget(largest: 1 << 20, free: 8 << 30) == [512, 2])
        #expect(try Self.budget(largest: 1 << 30, free: 8 << 30) == [1024, 2])
        #expect(try Self.budget(largest: 1 << 20, free: 512 << 20) == [256, 2])
        #expect(try Self.budget(largest: 300 << 20, free: 512 << 20) == [512, 1])
        #expect(try Self.budget(largest: 1 << 30, free: 1 << 30) == [1024, 1])
        #expect(try Self.budget(largest: 1 << 20, free: 16 << 20) == [16, 1])
        #expect(throws: SlotBudget.Shortage.self) {
            try Self.budget(largest: 1 << 30, free: 1 << 29)
        }
    }
}
