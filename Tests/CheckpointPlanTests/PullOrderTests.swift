import CheckpointModel
import CheckpointTesting
import Testing

@testable import CheckpointPlan

struct ChunkGridTests {
    @Test func chunksTileTheShards() throws {
        let counts = [0, 10, 0, 4, 1, 0]
        let grid = try #require(ChunkGrid(shardByteCounts: counts, chunkByteCount: 4))
        #expect(grid.count == 3 + 1 + 1)
        var ends = [Int](repeating: 0, count: counts.count)
        for chunk in 0..<grid.count {
            let place = grid.range(of: chunk)
            #expect(place.range.offset == ends[place.shard] && place.range.byteCount > 0)
            #expect(grid.chunks(covering: place) == chunk..<(chunk + 1))
            #expect(grid.shard(of: chunk) == place.shard)
            ends[place.shard] = place.range.end
        }
        #expect(ends == counts)
        #expect(grid.range(of: 0..<3).range == ByteRange(offset: 0, byteCount: 10))
        #expect(grid.range(of: 1..<2).range == ByteRange(offset: 4, byteCount: 4))
    }

    @Test func coveringChunksAreThoseThatTouch() throws {
        let grid = try #require(ChunkGrid(shardByteCounts: [10, 9], chunkByteCount: 4))
        func covering(_ shard: Int, _ offset: Int, _ byteCount: Int) throws -> Range<Int>? {
            let range = try #require(ByteRange(offset: offset, byteCount: byteCount))
            return grid.chunks(covering: ShardRange(shard: shard, range: range))
        }
        #expect(try covering(0, 0, 10) == 0..<3)
        #expect(try covering(1, 3, 2) == 3..<5)
        #expect(try covering(1, 4, 4) == 4..<5)
        #expect(try covering(1, 9, 0) == 5..<5)
        #expect(try covering(1, 8, 2) == nil)
        #expect(try covering(2, 0, 0) == nil && covering(-1, 0, 0) == nil)
    }

    @Test func numbersThatCannotBeAreRefused() {
        #expect(ChunkGrid(shardByteCounts: [-1]) == nil)
        #expect(ChunkGrid(shardByteCounts: [1], chunkByteCount: 0) == nil)
        #expect(ChunkGrid(shardByteCounts: [.max, 1]) == nil)
        #expect(ChunkGrid(shardByteCounts: [.max], chunkByteCount: 1) == nil)
        #expect(ChunkGrid(shardByteCounts: [])?.count == 0)
    }
}

struct PullOrderTests {
    @Test(arguments: 0..<40 as Range<UInt64>)
    func prefixesOfRangesNeedPrefixesOfChunks(_ seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        let counts = (0..<4).map { _ in Int.random(in: 0...200, using: &generator) }
        let grid = try #require(ChunkGrid(shardByteCounts: counts, chunkByteCount: 8))
        let ranges = try (0..<30).map { _ in
            let shard = Int.random(in: 0..<4, using: &generator)
            let offset = Int.random(in: 0...counts[shard], using: &generator)
            let count = Int.random(in: 0...(counts[shard] - offset), using: &generator)
            let range = try #require(ByteRange(offset: offset, byteCount: count / 3))
            return ShardRange(shard: shard, range: range)
        }
        let order = try #require(PullOrder(grid: grid, ranges: ranges))
        #expect(Set(order.chunks).count == order.count && order.rangeCount == 30)
        for (place, chunk) in order.chunks.enumerated() { #expect(order.place(of: chunk) == place) }
        var needed: Set<Int> = []
        for (index, range) in ranges.enumerated() {
            needed.formUnion(try #require(grid.chunks(covering: range)))
            #expect(order.chunkCount(neededBy: index + 1) == needed.count)
            #expect(Set(order.chunks.prefix(needed.count)) == needed, "seed \(seed)")
            #expect(order.rangeCount(completeWith: needed.count) > index)
        }
        #expect(order.place(of: -1) == nil && order.place(of: grid.count) == nil)
        #expect(order.count == needed.count && order.chunkCount(neededBy: 0) == 0)
        // Chunks that come in any order: ranges are complete as their chunks say.
        var arrivals = PullArrivals(order: order)
        var here: Set<Int> = []
        for chunk in order.chunks.shuffled(using: &generator) {
            #expect(!arrivals.contains(chunk))
            let isNew = [arrivals.insert(chunk), arrivals.insert(chunk)]
            #expect(isNew == [true, false] && arrivals.contains(chunk))
            here.insert(chunk)
            let complete = ranges.prefix { range in
                here.isSuperset(of: grid.chunks(covering: range) ?? 0..<0)
            }
            #expect(arrivals.completeRangeCount == complete.count, "seed \(seed)")
            #expect(arrivals.count == here.count)
        }
        #expect(arrivals.isComplete && arrivals.completeRangeCount == 30)
    }

    @Test func rangesOutsideTheirShardAreRefused() throws {
        let grid = try #require(ChunkGrid(shardByteCounts: [8], chunkByteCount: 8))
        let range = try #require(ByteRange(offset: 8, byteCount: 1))
        #expect(PullOrder(grid: grid, ranges: [ShardRange(shard: 0, range: range)]) == nil)
    }
}

struct PlaceSetTests {
    @Test(arguments: [0, 1, 63, 64, 65, 4096, 4097, 300_000])
    func isASet(_ bound: Int) {
        var generator = SeededGenerator(seed: UInt64(bound))
        var full = PlaceSet(bound: bound, isFull: true)
        #expect(full.count == bound && full.first(from: bound) == nil)
        var set = PlaceSet(bound: bound)
        var plain: Set<Int> = []
        #expect(set.isEmpty && set.first(from: 0) == nil)
        guard bound > 0 else { return }
        for _ in 0..<500 {
            let number = Int.random(in: 0..<bound, using: &generator)
            if Bool.random(using: &generator) {
                let isNew = set.insert(number)
                #expect(isNew != plain.contains(number))
                plain.insert(number)
            } else {
                let wasThere = set.remove(number)
                #expect(wasThere == plain.contains(number))
                plain.remove(number)
            }
            let start = Int.random(in: 0..<bound, using: &generator)
            #expect(set.first(from: start) == plain.filter { $0 >= start }.min())
            #expect(set.count == plain.count)
            #expect(full.first(from: start) == start)
        }
        for number in 0..<(bound - 1) { full.remove(number) }
        #expect(full.first(from: 0) == bound - 1 && full.count == 1)
    }
}
