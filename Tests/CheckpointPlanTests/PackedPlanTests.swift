import CheckpointModel
import CheckpointPlan
import CheckpointTesting
import Testing

struct PackedPlanTests {
    /// What a receiver makes of the order: the sizes of the chunks that it waits for.
    private static func received(_ sizes: [Int], limit: Int) -> [[Int]] {
        var chunks: [[Int]] = [[]]
        var total = 0
        for size in sizes {
            chunks[chunks.count - 1].append(size)
            total += size
            if total > limit {
                chunks.append([])
                total = 0
            }
        }
        return chunks.filter { !$0.isEmpty }
    }

    private static func catalog(_ generator: inout SeededGenerator) throws -> Catalog {
        let all = RandomCatalog.make(tensorCount: 300, shardCount: 4, using: &generator)
        return try Catalog(
            shards: all.shards, tensors: all.tensors.filter { $0.dtype.bitWidth % 8 == 0 })
    }

    @Test(arguments: [0, 1, 100, 4096, 1 << 30])
    func receiversCutOutWhatWasPacked(_ limit: Int) throws {
        let seed = UInt64.random(in: 0 ... .max)
        var generator = SeededGenerator(seed: seed)
        let catalog = try Self.catalog(&generator)
        let plan = try PackedPlan(catalog: catalog, chunkByteCount: limit)
        #expect(plan.order.sorted() == Array(catalog.tensors.indices), "seed \(seed)")
        let sizes = plan.order.map { catalog.tensors[$0].range.byteCount }
        let received = Self.received(sizes, limit: limit)
        #expect(plan.chunks.map(\.count) == received.map(\.count), "seed \(seed)")
        #expect(plan.chunks.map(\.byteCount) == received.map { $0.reduce(0, +) })
        for (index, chunk) in plan.chunks.enumerated() {
            // The bytes that the pieces bring, each by where it comes from.
            var content = [Int?](repeating: nil, count: chunk.byteCount)
            for piece in plan.pieces(of: index) {
                for byte in 0..<piece.byteCount {
                    #expect(content[piece.offset + byte] == nil)
                    content[piece.offset + byte] =
                        piece.shard << 32 | (piece.sourceOffset + byte)
                }
            }
            var offset = 0
            for place in plan.order[chunk.first..<(chunk.first + chunk.count)] {
                let tensor = catalog.tensors[place]
                #expect(offset % max(1, tensor.dtype.bitWidth / 8) == 0, "seed \(seed)")
                for byte in 0..<tensor.range.byteCount {
                    #expect(
                        content[offset + byte] == tensor.shard << 32 | (tensor.range.offset + byte))
                }
                offset += tensor.range.byteCount
            }
        }
    }

    @Test func halfBytesAreRefusedByName() throws {
        let tensor = TensorEntry(
            name: "quarter", dtype: .f4, shape: try #require(Shape([4])), shard: 0,
            range: try #require(ByteRange(offset: 0, byteCount: 2)))
        let catalog = try Catalog(shards: [.init(name: "a", byteCount: 2)], tensors: [tensor])
        let error = try #require(throws: PackedPlan.UnsupportedTensor.self) {
            try PackedPlan(catalog: catalog, chunkByteCount: 100)
        }
        #expect(error.name == "quarter")
    }
}
