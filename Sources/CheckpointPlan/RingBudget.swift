/// How much memory of each GPU an update takes: one ring, in which buckets follow one another.
public struct RingBudget: Hashable, Sendable {
    /// Bytes of the ring, a multiple of ``alignment``.
    public let byteCount: Int
    /// The size that buckets are filled to; a larger tensor has a bucket of its own.
    public let bucketByteCount: Int

    public static let alignment = 64 << 10
    /// Memory that is left to the engine on the tightest GPU.
    public static let headroomByteCount = 128 << 20
    /// Larger buckets gain nothing and make the last one late.
    static let bucketByteCountMax = 256 << 20
    /// Buckets that find room in the ring side by side, so that copying never waits for a reload.
    static let depth = 4

    /// The memory is too short for the largest tensor.
    public struct Shortage: Error, Hashable {
        /// What the ring needs at least, beside the headroom.
        public let neededByteCount: Int
        public let freeByteCount: Int
    }

    /// Chooses for a checkpoint of `byteCount` bytes whose largest tensor has `largestByteCount`.
    ///
    /// The ring takes two slots where memory is free, each of `slotByteCountMax` or the largest tensor.
    /// With less memory it becomes smaller, down to the largest tensor alone, which then is copied and
    /// loaded in turn.
    public init(
        byteCount: Int, largestByteCount: Int, slotByteCountMax: Int, freeByteCount: Int
    ) throws(Shortage) {
        let largest = Self.aligned(max(largestByteCount, 1))
        let slot = max(largest, Self.aligned(min(slotByteCountMax, byteCount)))
        let usable = (freeByteCount - Self.headroomByteCount) / Self.alignment * Self.alignment
        guard usable >= largest else {
            throw Shortage(neededByteCount: largest, freeByteCount: max(0, freeByteCount))
        }
        let ring = min(2 * slot, usable)
        self.byteCount = ring
        bucketByteCount = min(
            Self.bucketByteCountMax, max(Self.alignment, Self.aligned(ring / Self.depth)))
    }

    private static func aligned(_ byteCount: Int) -> Int {
        (byteCount + alignment - 1) / alignment * alignment
    }
}
