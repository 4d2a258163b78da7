/// Chunks that one endpoint of a source sends to one endpoint of the receiver.
public struct PullBatch: Hashable, Sendable {
    /// Never used again in this schedule.
    public let id: Int
    /// What ``PullSchedule/addSource(endpointCount:holdsAll:)`` returned.
    public let source: Int
    public let sourceEndpoint: Int
    public let receiverEndpoint: Int
    /// Runs of adjacent chunks, ascending, each inside one shard: one range of the transfer each.
    public let chunks: [Range<Int>]
    /// Bytes of all chunks.
    public let byteCount: Int
}

extension PullBatch {
    /// Runs of adjacent numbers among `chunks`, cut where a shard ends.
    static func runs(of chunks: [Int], in grid: ChunkGrid) -> [Range<Int>] {
        var runs: [Range<Int>] = []
        var shardEnd = 0
        for chunk in chunks.sorted() {
            if let last = runs.last, last.upperBound == chunk, chunk < shardEnd {
                runs[runs.count - 1] = last.lowerBound..<(chunk + 1)
            } else {
                if chunk >= shardEnd {
                    shardEnd = grid.chunks(of: grid.shard(of: chunk)).upperBound
                }
                runs.append(chunk..<(chunk + 1))
            }
        }
        return runs
    }
}
