import CheckpointPlan
import CheckpointPull

/// What passes through a ring of this host's memory, on its way into engines.
struct PassingCheckpoint: Sendable {
    /// Buckets that find room in the ring side by side, so that reading does not wait for a reload.
    private static let depth = 4

    let ring: PullRing
    /// Told when tensors have been delivered.
    let room = PullRoom()

    init(ring: PullRing) { self.ring = ring }

    var bucketByteCountMax: Int { ring.byteCount / Self.depth }

    /// Whether each bucket, as a run of tensors, lies in the ring at once.
    func hasRoom(for buckets: [Range<Int>]) -> Bool {
        buckets.allSatisfy { ring.slotCount(of: $0) <= ring.slotCount }
    }
}

/// Tells a pull, in buckets of one delivery, what has been delivered.
struct DeliveredBuckets: Sendable {
    let room: PullRoom
    /// How many tensors each number of buckets has, beginning with none.
    let ends: [Int]

    /// The first `count` buckets have left the host's memory.
    func release(_ count: Int) { room.release(ends[min(count, ends.count - 1)]) }
}
