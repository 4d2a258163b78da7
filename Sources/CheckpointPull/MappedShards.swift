import CheckpointModel
import Synchronization

/// Mappings of the pool's segments that pulls have verified in, kept for the next pull into the same: to map
/// pages costs a good part of what it takes to check them.
public final class MappedShards: Sendable {
    private struct Known {
        let location: SegmentLocation
        let shard: MappedShard
    }

    private let known = Mutex<[String: Known]>([:])

    public init() {}

    /// The mapping of a location, with room for `byteCount` bytes in its data section.
    func shard(_ location: SegmentLocation, byteCount: Int) throws(PullError) -> MappedShard {
        let found = known.withLock { $0[location.path] }
        if let found, found.location == location, found.shard.byteCount == byteCount {
            return found.shard
        }
        let shard = try MappedShard(location, byteCount: byteCount)
        known.withLock { $0[location.path] = Known(location: location, shard: shard) }
        return shard
    }

    /// Lets go of files that are removed, unless a pull uses them still.
    public func drop(paths: [String]) {
        let dropped = known.withLock { known in paths.compactMap { known.removeValue(forKey: $0) } }
        // Unmapped here, without the lock.
        _ = dropped
    }
}
