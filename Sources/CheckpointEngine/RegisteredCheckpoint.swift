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
    /// Tensors of its files that are no part of it, by their index.
    var leftOutCount = 0
    /// What of it has arrived; `nil` for one that was registered here.
    var feed: PullFeed?
    /// Its form for other hosts.
    var sharing = SharedCheckpointCache()
    /// Its ring, where it is not kept here.
    var passing: PassingCheckpoint?
    /// Names these bytes for other hosts: no other registration has the same.
    let incarnation = String(UInt64.random(in: .min ... .max), radix: 16)

    var pooledByteCount: Int { segments.reduce(0) { $0 + $1.byteCount } }

    /// Bytes of the files that are used where they lie.
    var inPlaceByteCount: Int {
        shards.reduce(0) { $0 + ($1.isSharedMemory ? $1.byteCount : 0) }
    }

    var usesFilesInPlace: Bool { shards.contains(where: \.isSharedMemory) }

    /// Throws where a file that is used in place is not the one any more that was registered.
    func checkFiles() throws(FilesError) {
        for shard in shards where shard.isSharedMemory { try shard.checkUnchanged() }
    }

    /// For everything but one update of one host's engines.
    func checkKept(_ name: CheckpointName) throws(EngineError) {
        guard passing == nil else {
            throw EngineError(
                .invalidArgument,
                "\(name) passes through this host, for one update of its own engines, and is not kept: "
                    + "pull it again where there is memory for all of it")
        }
    }
}
