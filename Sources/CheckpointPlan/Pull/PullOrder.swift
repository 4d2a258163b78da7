/// The chunks that a pull wants, in the order in which a delivery needs them. Immutable and pure.
///
/// The place of a chunk is its index in this order. Chunks that no range touches are not in it.
public struct PullOrder: Hashable, Sendable {
    public let grid: ChunkGrid
    /// Chunk numbers, each once.
    public let chunks: [Int]
    /// For each prefix of the ranges, from the empty one on, how many of ``chunks`` it needs.
    private let needs: [Int]
    /// For each chunk of the grid its place, or -1.
    private let places: [Int32]

    /// Takes the ranges in the order of delivery; they may touch, overlap, repeat and be empty.
    /// Fails when one lies outside its shard.
    public init?(grid: ChunkGrid, ranges: [ShardRange]) {
        var chunks: [Int] = []
        var needs = [0]
        var places = [Int32](repeating: -1, count: grid.count)
        needs.reserveCapacity(ranges.count + 1)
        var needed = 0
        for range in ranges {
            guard let covering = grid.chunks(covering: range) else { return nil }
            for chunk in covering {
                if places[chunk] < 0 {
                    places[chunk] = Int32(chunks.count)
                    chunks.append(chunk)
                }
                needed = max(needed, Int(places[chunk]) + 1)
            }
            needs.append(needed)
        }
        self.grid = grid
        self.chunks = chunks
        self.needs = needs
        self.places = places
    }

    /// The number of chunks wanted.
    public var count: Int { chunks.count }

    /// The number of ranges that the order was made from.
    public var rangeCount: Int { needs.count - 1 }

    /// Where a chunk stands in the order; `nil` when no range touches it, as for one that the grid
    /// does not have.
    public func place(of chunk: Int) -> Int? {
        guard places.indices.contains(chunk), places[chunk] >= 0 else { return nil }
        return Int(places[chunk])
    }

    /// How many chunks, from the first on, the first `rangeCount` ranges need.
    public func chunkCount(neededBy rangeCount: Int) -> Int { needs[rangeCount] }

    /// How many ranges, from the first on, are complete once the first `chunkCount` chunks have
    /// arrived.
    public func rangeCount(completeWith chunkCount: Int) -> Int {
        var low = 0
        var high = needs.count
        while high - low > 1 {
            let middle = (low + high) / 2
            if needs[middle] <= chunkCount { low = middle } else { high = middle }
        }
        return low
    }
}
