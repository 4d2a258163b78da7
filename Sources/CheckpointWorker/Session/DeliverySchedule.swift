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

    public init(buckets: [Bucket]) { self.buckets = buckets }
}
