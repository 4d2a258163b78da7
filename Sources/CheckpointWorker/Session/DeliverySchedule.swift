/// What a session delivers: the buckets, as runs of the catalog that was sent.
public struct DeliverySchedule: Hashable, Sendable {
    public struct Bucket: Hashable, Sendable {
        public let first: Int
        public let count: Int
        public let byteCount: Int

        public init(first: Int, count: Int, byteCount: Int) {
            self.first = first
            self.count = count
            self.byteCount = byteCount
        }
    }

    public let buckets: [Bucket]
    /// Buckets that are there from the start; the others are announced as they come.
    public let availableCount: Int
    /// Stages that begin only when they are permitted: when other hosts are as far, and the bytes are
    /// still those that were to be delivered.
    public let gates: Set<SessionStage>

    /// A delivery whose bytes are all there: of host memory.
    public init(buckets: [Bucket]) { self.init(buckets: buckets, availableCount: buckets.count) }

    public init(buckets: [Bucket], availableCount: Int, gates: Set<SessionStage> = []) {
        self.buckets = buckets
        self.gates = gates
        self.availableCount = availableCount
    }
}
