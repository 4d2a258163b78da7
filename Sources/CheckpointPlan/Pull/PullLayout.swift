import CheckpointModel

/// Where a pull puts what it reads. Immutable and pure.
///
/// Chunks of ``order`` are numbered as the schedule, the arrivals and the memory here count them; at
/// the sources they may have other numbers.
public enum PullLayout: Hashable, Sendable {
    /// Shards as large as the sources', every chunk at its own place.
    case whole(PullOrder)
    /// One location, in which chunks follow one another.
    case ring(PullRing)

    /// Bytes that are adjacent at the source and here.
    public struct Piece: Hashable, Sendable {
        public let source: ShardRange
        /// The location here, by its number.
        public let location: Int
        /// Where in its data section.
        public let offset: Int
    }

    /// What is read, in the order of want.
    public var order: PullOrder {
        switch self {
        case .whole(let order): order
        case .ring(let ring): ring.order
        }
    }

    /// The sources' grid.
    public var source: ChunkGrid {
        switch self {
        case .whole(let order): order.grid
        case .ring(let ring): ring.source
        }
    }

    /// Bytes of each location here.
    public var byteCounts: [Int] {
        switch self {
        case .whole(let order): order.grid.shardByteCounts
        case .ring(let ring): [ring.byteCount]
        }
    }

    /// How many places of ``order``, from the first on, may be filled once the first `rangeCount`
    /// ranges have been delivered.
    public func placeCount(released rangeCount: Int) -> Int {
        switch self {
        case .whole(let order): order.count
        case .ring(let ring): ring.placeCount(released: rangeCount)
        }
    }

    /// The number that a chunk of ``order`` has at the sources.
    public func sourceChunk(_ chunk: Int) -> Int {
        switch self {
        case .whole: chunk
        case .ring(let ring): ring.chunk(at: chunk)
        }
    }

    /// The chunks of ``order`` that have the bytes of one of the sources' chunks.
    public func chunks(ofSource chunk: Int) -> [Int] {
        switch self {
        case .whole: [chunk]
        case .ring(let ring): ring.positions(of: chunk)
        }
    }

    /// Where the bytes of a chunk of ``order`` are.
    public func piece(of chunk: Int) -> Piece {
        pieces(of: chunk..<(chunk + 1))[0]
    }

    /// Where the bytes of adjacent chunks of ``order`` in one shard of it are: as few pieces as there
    /// are.
    public func pieces(of chunks: Range<Int>) -> [Piece] {
        switch self {
        case .whole(let order):
            let range = order.grid.range(of: chunks)
            return [Piece(source: range, location: range.shard, offset: range.range.offset)]
        case .ring(let ring):
            return ring.runs(of: chunks).map { run in
                let first = ring.chunk(at: run.lowerBound)
                let source = ring.source.range(of: first..<(first + run.count))
                return Piece(
                    source: source, location: 0,
                    offset: run.lowerBound % ring.slotCount * ring.source.chunkByteCount)
            }
        }
    }
}

extension PullRing {
    /// Cuts adjacent positions where their chunks are not adjacent at the sources, or their slots
    /// here.
    fileprivate func runs(of positions: Range<Int>) -> [Range<Int>] {
        var runs: [Range<Int>] = []
        var shardEnd = 0
        for position in positions {
            let chunk = chunk(at: position)
            let isNext =
                !runs.isEmpty && chunk < shardEnd && position % slotCount != 0
                && chunk == self.chunk(at: position - 1) + 1
            if isNext, let last = runs.popLast() {
                runs.append(last.lowerBound..<(position + 1))
            } else {
                shardEnd = source.chunks(of: source.shard(of: chunk)).upperBound
                runs.append(position..<(position + 1))
            }
        }
        return runs
    }
}
