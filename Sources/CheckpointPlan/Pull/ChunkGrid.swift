import CheckpointModel

/// The fixed grid that shards are read and checked by: chunks of equal size in each shard's data
/// section, the last of a shard shorter, numbered densely over all shards. Immutable and pure;
/// equal on both sides.
public struct ChunkGrid: Hashable, Sendable {
    public static let chunkByteCountDefault = 1 << 20
    /// More chunks are refused: tables of them would not find room in memory.
    public static let countMax = 1 << 26
    /// What a chunk may be made of: it is read, checked and sent as a whole.
    public static let chunkByteCountRange = 1...(1 << 30)

    /// Bytes of every chunk but the last of a shard.
    public let chunkByteCount: Int
    /// Bytes of each shard's data section.
    public let shardByteCounts: [Int]
    /// The first chunk of each shard, and the count of all chunks at the end.
    private let starts: [Int]

    /// Fails when the chunks have another size than ``chunkByteCountRange``, the bytes of all shards are no
    /// ``ByteCount``, or there are more than ``countMax`` chunks. An empty shard has no chunk.
    public init?(shardByteCounts: [Int], chunkByteCount: Int = Self.chunkByteCountDefault) {
        guard Self.chunkByteCountRange.contains(chunkByteCount),
            ByteCount.sum(shardByteCounts) != nil
        else { return nil }
        var starts = [0]
        var count = 0
        for shardByteCount in shardByteCounts {
            let whole = shardByteCount / chunkByteCount
            count += whole + (shardByteCount % chunkByteCount > 0 ? 1 : 0)
            guard whole <= Self.countMax, count <= Self.countMax else { return nil }
            starts.append(count)
        }
        self.chunkByteCount = chunkByteCount
        self.shardByteCounts = shardByteCounts
        self.starts = starts
    }

    /// The number of chunks of all shards.
    public var count: Int { starts[shardByteCounts.count] }

    /// The chunks of one of the shards.
    public func chunks(of shard: Int) -> Range<Int> { starts[shard]..<starts[shard + 1] }

    /// The shard that a chunk below ``count`` belongs to.
    public func shard(of chunk: Int) -> Int {
        precondition(0 <= chunk && chunk < count, "chunk numbers come from this grid")
        var low = 0
        var high = shardByteCounts.count
        while high - low > 1 {
            let middle = (low + high) / 2
            if starts[middle] <= chunk { low = middle } else { high = middle }
        }
        // Empty shards begin where the next one does; the last that begins there has the chunk.
        return low
    }

    /// Where a chunk below ``count`` lies.
    public func range(of chunk: Int) -> ShardRange { range(of: chunk..<(chunk + 1)) }

    /// Where adjacent chunks of one shard lie, as one range; there is at least one.
    public func range(of chunks: Range<Int>) -> ShardRange {
        let shard = shard(of: chunks.lowerBound)
        precondition(
            !chunks.isEmpty && chunks.upperBound <= starts[shard + 1], "the chunks share a shard")
        let offset = (chunks.lowerBound - starts[shard]) * chunkByteCount
        let isWhole = chunks.upperBound < starts[shard + 1]
        let end =
            isWhole
            ? (chunks.upperBound - starts[shard]) * chunkByteCount : shardByteCounts[shard]
        guard let range = ByteRange(offset: offset, byteCount: end - offset) else {
            preconditionFailure("a chunk begins inside its shard")
        }
        return ShardRange(shard: shard, range: range)
    }

    /// Bytes of a chunk below ``count``.
    public func byteCount(of chunk: Int) -> Int { range(of: chunk).range.byteCount }

    /// The chunks that together hold all bytes of `range`, none for an empty one; `nil` when there
    /// is no such shard or it ends before the range does.
    public func chunks(covering range: ShardRange) -> Range<Int>? {
        guard shardByteCounts.indices.contains(range.shard),
            range.range.end <= shardByteCounts[range.shard]
        else { return nil }
        let start = starts[range.shard]
        let first = start + range.range.offset / chunkByteCount
        guard range.range.byteCount > 0 else { return first..<first }
        return first..<(start + (range.range.end - 1) / chunkByteCount + 1)
    }
}
