import CheckpointDevice
import CheckpointFiles
import CheckpointModel
import CheckpointPlan
import CheckpointPull

/// A checkpoint whose bytes all lie in shared memory. Immutable; owned by the registry.
struct RegisteredCheckpoint: Sendable {
    let shards: [ShardFile]
    /// The tensors in the order of delivery.
    let catalog: Catalog
    /// One for each shard: where workers find it.
    let locations: [SegmentLocation]
    /// The pinned file of each location; none where engines are on the CPU.
    let pins: [PinnedFile]
    /// The pool's segments, for the shards that were read from disk.
    let segments: [PoolSegment]
    /// Runs of ``catalog``.
    let buckets: [UpdatePlan.Bucket]
    let seconds: Double
    let plans = PlanCache()
    /// The digest of its catalog, equal on hosts that have the same tensors.
    let digest: String
    /// What of it has arrived; `nil` for one that was registered here.
    var feed: PullFeed?
    /// Its form for other hosts.
    var sharing = SharedCheckpointCache()
    /// Names these bytes for other hosts: no other registration has the same.
    let incarnation = String(UInt64.random(in: .min ... .max), radix: 16)

    var pooledByteCount: Int { segments.reduce(0) { $0 + $1.byteCount } }

    /// Bytes of the files that are used where they lie.
    var inPlaceByteCount: Int {
        shards.reduce(0) { $0 + ($1.isSharedMemory ? $1.byteCount : 0) }
    }
}
