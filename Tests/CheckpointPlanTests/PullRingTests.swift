import CheckpointModel
import CheckpointTesting
import Testing

@testable import CheckpointPlan

/// Random shards through rings of random size, byte by byte.
struct PullRingTests {
    private static let chunkByteCount = 8

    /// Tensors that tile the shards with gaps, in the order of the files or in any.
    private struct Sample {
        var shards: [[UInt8]] = []
        var ranges: [ShardRange] = []
        let grid: ChunkGrid

        init(_ generator: inout SeededGenerator) throws {
            for shard in 0..<Int.random(in: 1...4, using: &generator) {
                let count = Int.random(in: 0...300, using: &generator)
                shards.append((0..<count).map { _ in .random(in: 0...255, using: &generator) })
                var offset = 0
                while offset < count {
                    let length = Int.random(in: 0...min(40, count - offset), using: &generator)
                    let range = try #require(ByteRange(offset: offset, byteCount: length))
                    ranges.append(ShardRange(shard: shard, range: range))
                    offset += length + Int.random(in: 0...2, using: &generator) * 3 + 1
                }
            }
            if Bool.random(using: &generator) { ranges.shuffle(using: &generator) }
            grid = try #require(
                ChunkGrid(
                    shardByteCounts: shards.map(\.count),
                    chunkByteCount: PullRingTests.chunkByteCount))
        }

        func bytes(_ range: ShardRange) -> ArraySlice<UInt8> {
            shards[range.shard][range.range.offset..<range.range.end]
        }
    }

    @Test(arguments: 0..<200 as Range<UInt64>)
    func everyRangeIsContiguousWhenItsTurnComes(_ seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        let sample = try Sample(&generator)
        let least = PullRing.slotCountMin(sample.grid, sample.ranges)
        let slots = least + Int.random(in: 0...20, using: &generator)
        let ring = try PullRing(grid: sample.grid, ranges: sample.ranges, slotCount: slots)
        let layout = PullLayout.ring(ring)
        #expect(layout.byteCounts == [slots * Self.chunkByteCount])
        var memory = [UInt8](repeating: 0, count: ring.byteCount)
        var arrivals = PullArrivals(order: ring.order)
        var released = 0
        while released < sample.ranges.count {
            // Everything that there is room for arrives, in any order, some of it twice.
            let open = ring.order.chunks[..<ring.placeCount(released: released)]
            for position in open.filter({ !arrivals.contains($0) }).shuffled(using: &generator) {
                Self.read(layout.pieces(of: position..<(position + 1)), sample, into: &memory)
                #expect(layout.chunks(ofSource: layout.sourceChunk(position)).contains(position))
                arrivals.insert(position)
            }
            // A bucket that finds room side by side is complete.
            var end = released + 1
            while end < sample.ranges.count, ring.slotCount(of: released..<(end + 1)) <= slots,
                Int.random(in: 0..<4, using: &generator) > 0
            {
                end += 1
            }
            #expect(ring.order.rangeCount >= end && arrivals.completeRangeCount >= end)
            for index in released..<end {
                let range = sample.ranges[index]
                let start = ring.offsets[index]
                let found = memory[start..<(start + range.range.byteCount)]
                #expect(found == sample.bytes(range), "seed \(seed), range \(index)")
            }
            released = end
        }
        #expect(arrivals.isComplete)
    }

    private static func read(
        _ pieces: [PullLayout.Piece], _ sample: Sample, into memory: inout [UInt8]
    ) {
        for piece in pieces {
            #expect(piece.location == 0)
            let end = piece.offset + piece.source.range.byteCount
            memory.replaceSubrange(piece.offset..<end, with: sample.bytes(piece.source))
        }
    }

    /// Runs of positions become few pieces, which say the same as the single ones.
    @Test(arguments: 0..<50 as Range<UInt64>)
    func runsAreCutOnlyWhereTheyHaveToBe(_ seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        let sample = try Sample(&generator)
        let slots = PullRing.slotCountMin(sample.grid, sample.ranges) + 10
        let ring = try PullRing(grid: sample.grid, ranges: sample.ranges, slotCount: slots)
        for layout in [PullLayout.ring(ring), try Self.whole(sample)] {
            for run in PullBatch.runs(of: layout.order.chunks, in: layout.order.grid) {
                let pieces = layout.pieces(of: run)
                let single = run.map { layout.piece(of: $0) }
                #expect(
                    pieces.reduce(0) { $0 + $1.source.range.byteCount }
                        == single.reduce(0) { $0 + $1.source.range.byteCount })
                for piece in pieces {
                    #expect(
                        single.contains {
                            $0.offset == piece.offset
                                && $0.source.range.offset == piece.source.range.offset
                                && $0.location == piece.location
                                && $0.source.shard == piece.source.shard
                        })
                }
                let adjacent = zip(pieces, pieces.dropFirst()).filter { left, right in
                    left.source.shard == right.source.shard && left.location == right.location
                        && left.source.range.end == right.source.range.offset
                        && left.offset + left.source.range.byteCount == right.offset
                }
                #expect(adjacent.isEmpty, "seed \(seed)")
            }
        }
    }

    private static func whole(_ sample: Sample) throws -> PullLayout {
        .whole(try #require(PullOrder(grid: sample.grid, ranges: sample.ranges)))
    }

    @Test func whatDoesNotFitIsRefused() throws {
        let grid = try #require(ChunkGrid(shardByteCounts: [64], chunkByteCount: 8))
        let range = try #require(ByteRange(offset: 4, byteCount: 40))
        let ranges = [ShardRange(shard: 0, range: range)]
        #expect(PullRing.slotCountMin(grid, ranges) == 6)
        #expect(throws: PullRing.Refusal.shortage(neededByteCount: 48)) {
            try PullRing(grid: grid, ranges: ranges, slotCount: 5)
        }
        let ring = try PullRing(grid: grid, ranges: ranges, slotCount: 6)
        #expect(ring.offsets == [4] && ring.placeCount(released: 0) == 6)
    }

    @Test func aCheckpointInOrderIsReadOnce() throws {
        let grid = try #require(ChunkGrid(shardByteCounts: [8 * 1000], chunkByteCount: 8))
        let ranges = stride(from: 0, to: 8000, by: 20).compactMap { offset in
            ByteRange(offset: offset, byteCount: 20).map { ShardRange(shard: 0, range: $0) }
        }
        let ring = try PullRing(grid: grid, ranges: ranges, slotCount: 100)
        // Only where the ring begins anew a chunk may be needed at its end and at its start.
        #expect(ring.order.count <= 1000 + 1000 / 97)
        #expect(ring.order.count >= 1000)
    }
}
