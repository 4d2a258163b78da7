/// How much memory of each GPU the buckets of an update may take.
public struct SlotBudget: Hashable, Sendable {
    /// Bytes of one slot, a multiple of ``alignment``.
    public let slotByteCount: Int
    /// Two, so that copying and reloading overlap; one where memory is short.
    public let slotCount: Int

    public static let alignment = 64 << 10
    /// Memory that is left to the engine on the tightest GPU.
    public static let headroomByteCount = 128 << 20
    /// Two slots of less than this are worth less than one larger slot.
    static let usefulByteCount = 16 << 20

    /// The memory is too short for the largest tensor.
    public struct Shortage: Error, Hashable {
        /// What one slot needs, beside the headroom.
        public let neededByteCount: Int
        public let freeByteCount: Int
    }

    /// Chooses for a checkpoint of `byteCount` bytes whose largest tensor has `largestByteCount`.
    ///
    /// `slotByteCountMax` is what a slot takes where memory is free; a larger tensor gets a larger slot.
    /// With less memory slots become smaller, then one, as far as the largest tensor lets them.
    public init(
        byteCount: Int, largestByteCount: Int, slotByteCountMax: Int, freeByteCount: Int
    ) throws(Shortage) {
        let largest = Self.aligned(max(largestByteCount, 1))
        let wanted = max(largest, Self.aligned(min(slotByteCountMax, byteCount)))
        let usable = (freeByteCount - Self.headroomByteCount) / Self.alignment * Self.alignment
        let half = usable / 2 / Self.alignment * Self.alignment
        if half >= wanted {
            self.init(slotByteCount: wanted, slotCount: 2)
        } else if half >= largest, half >= min(wanted, Self.usefulByteCount) {
            self.init(slotByteCount: half, slotCount: 2)
        } else if usable >= largest {
            self.init(slotByteCount: min(usable, wanted), slotCount: 1)
        } else {
            throw Shortage(neededByteCount: largest, freeByteCount: max(0, freeByteCount))
        }
    }

    init(slotByteCount: Int, slotCount: Int) {
        self.slotByteCount = slotByteCount
        self.slotCount = slotCount
    }

    static func aligned(_ byteCount: Int) -> Int {
        (byteCount + alignment - 1) / alignment * alignment
    }
}
