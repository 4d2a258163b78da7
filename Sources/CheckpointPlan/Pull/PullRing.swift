import CheckpointModel

/// Where chunks lie in memory that has no room for all of them: slots of one chunk each, taken in
/// the order of delivery, and taken again when what was there has been delivered. Immutable and
/// pure.
///
/// Chunks are numbered anew, by *positions*: position `p` lies in slot `p % slotCount`. The bytes of
/// a range are contiguous in the ring, so that one that does not fit before its end begins at its
/// start. A chunk that two ranges touch has one position where they follow one another, and else
/// one for each: it is read again.
public struct PullRing: Hashable, Sendable {
    /// Why there can be no such ring.
    public enum Refusal: Error, Hashable {
        /// The largest range does not fit.
        case shortage(neededByteCount: Int)
        /// There would be more positions than a grid can have.
        case tooManyChunks
    }

    /// The grid of the sources.
    public let source: ChunkGrid
    public let slotCount: Int
    /// The positions in the order of want, as chunks of one shard that has them all; gaps at the
    /// ring's end are not in it.
    public let order: PullOrder
    /// Where each range begins in the ring, in bytes.
    public let offsets: [Int]
    /// For each position its chunk at the sources, or -1.
    private let chunks: [Int32]
    /// For each range, and for the end, the first position that it and those behind it need.
    private let starts: [Int]
    /// For each range the position behind its last.
    private let ends: [Int]
    /// The positions of each chunk: those of chunk `c` are `positions[firsts[c] ..< firsts[c + 1]]`.
    private let positions: [Int32]
    private let firsts: [Int32]

    /// Bytes of the ring.
    public var byteCount: Int { slotCount * source.chunkByteCount }

    /// Takes the ranges in the order of delivery, each inside its shard.
    public init(grid: ChunkGrid, ranges: [ShardRange], slotCount: Int) throws(Refusal) {
        var builder = Builder(grid: grid, slotCount: slotCount)
        for range in ranges { try builder.add(range) }
        source = grid
        self.slotCount = slotCount
        offsets = builder.offsets
        starts = Self.minimaFromHere(builder.starts + [builder.chunks.count])
        ends = builder.ends
        chunks = builder.chunks
        order = Self.order(builder, grid.chunkByteCount)
        (firsts, positions) = Self.index(builder.chunks, count: grid.count)
    }

    /// The chunk of the sources that lies at a position of ``order``.
    public func chunk(at position: Int) -> Int { Int(chunks[position]) }

    /// The positions of a chunk of the sources.
    public func positions(of chunk: Int) -> [Int] {
        positions[Int(firsts[chunk])..<Int(firsts[chunk + 1])].map(Int.init)
    }

    /// How many places of ``order``, from the first on, may be filled once the first `rangeCount`
    /// ranges have been delivered.
    public func placeCount(released rangeCount: Int) -> Int {
        let end = starts[rangeCount] + slotCount
        var low = 0
        var high = order.count
        while low < high {
            let middle = (low + high) / 2
            if order.chunks[middle] < end { low = middle + 1 } else { high = middle }
        }
        return low
    }

    /// The slots that are taken from the begin of the first of some ranges to the end of the last.
    public func slotCount(of ranges: Range<Int>) -> Int {
        ranges.isEmpty ? 0 : ends[ranges.upperBound - 1] - starts[ranges.lowerBound]
    }

    /// Slots that are enough for the largest of `ranges`.
    public static func slotCountMin(_ grid: ChunkGrid, _ ranges: [ShardRange]) -> Int {
        ranges.reduce(1) { max($0, grid.chunks(covering: $1)?.count ?? 0) }
    }

    private static func order(_ builder: Builder, _ chunkByteCount: Int) -> PullOrder {
        let all = builder.chunks.count * chunkByteCount
        let ranges = zip(builder.starts, builder.ends).map { start, end in
            ByteRange(
                offset: start * chunkByteCount, byteCount: (end - start) * chunkByteCount)
        }.compactMap(\.self).map { ShardRange(shard: 0, range: $0) }
        guard ranges.count == builder.starts.count,
            let grid = ChunkGrid(shardByteCounts: [all], chunkByteCount: chunkByteCount),
            let order = PullOrder(grid: grid, ranges: ranges)
        else { preconditionFailure("positions are numbered without gaps, and few") }
        return order
    }

    /// An empty range begins behind a position that the next one may share.
    private static func minimaFromHere(_ starts: [Int]) -> [Int] {
        var minima = starts
        for index in starts.indices.dropLast().reversed() {
            minima[index] = min(minima[index], minima[index + 1])
        }
        return minima
    }

    private static func index(_ chunks: [Int32], count: Int) -> (firsts: [Int32], [Int32]) {
        var firsts = [Int32](repeating: 0, count: count + 1)
        for chunk in chunks where chunk >= 0 { firsts[Int(chunk) + 1] += 1 }
        for chunk in 0..<count { firsts[chunk + 1] += firsts[chunk] }
        var next = firsts
        var positions = [Int32](repeating: 0, count: Int(firsts[count]))
        for (position, chunk) in chunks.enumerated() where chunk >= 0 {
            positions[Int(next[Int(chunk)])] = Int32(position)
            next[Int(chunk)] += 1
        }
        return (firsts, positions)
    }
}

extension PullRing {
    /// Gives positions to one range after the other.
    private struct Builder {
        let grid: ChunkGrid
        let slotCount: Int
        var offsets: [Int] = []
        var starts: [Int] = []
        var ends: [Int] = []
        var chunks: [Int32] = []

        init(grid: ChunkGrid, slotCount: Int) {
            self.grid = grid
            self.slotCount = slotCount
        }

        mutating func add(_ range: ShardRange) throws(Refusal) {
            guard let covering = grid.chunks(covering: range) else {
                preconditionFailure("a range lies in its shard")
            }
            guard covering.count <= slotCount else {
                throw .shortage(neededByteCount: covering.count * grid.chunkByteCount)
            }
            var start = chunks.count
            // The last position may have the first bytes already.
            if let first = covering.first, chunks.last == Int32(first) { start -= 1 }
            if start % slotCount + covering.count > slotCount {
                start = (start / slotCount + 1) * slotCount
                chunks += [Int32](repeating: -1, count: start - chunks.count)
            }
            guard start + covering.count <= ChunkGrid.countMax else { throw .tooManyChunks }
            for chunk in covering.dropFirst(chunks.count - start) { chunks.append(Int32(chunk)) }
            starts.append(start)
            ends.append(start + covering.count)
            offsets.append(
                start % slotCount * grid.chunkByteCount
                    + (covering.isEmpty ? 0 : range.range.offset % grid.chunkByteCount))
        }
    }
}
