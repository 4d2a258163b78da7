import CheckpointModel

/// Who may read which checkpoint from this host, in the order in which they came. The first reads; the others
/// wait for their turn, and are told of those before them, from whom they can read as well.
struct LeaseBook {
    struct Lease {
        let id: String
        let checkpoint: CheckpointName
        let incarnation: String
        /// Where others can read from this reader.
        let reader: String?
        var end: ContinuousClock.Instant
    }

    /// A reader that does not say for so long that it goes on is gone.
    static let duration = Duration.seconds(10)
    static let countMax = 4096

    private var leases: [Lease] = []
    private var nextNumber = 1
    private(set) var begunCount = 0

    var count: Int { leases.count }

    /// `nil` when there are too many.
    mutating func begin(
        _ checkpoint: CheckpointName, incarnation: String, reader: String?,
        at now: ContinuousClock.Instant
    ) -> Lease? {
        dropEnded(at: now)
        guard leases.count < Self.countMax else { return nil }
        let suffix = String(UInt64.random(in: .min ... .max), radix: 16)
        let lease = Lease(
            id: "lease-\(nextNumber)-\(suffix)", checkpoint: checkpoint, incarnation: incarnation,
            reader: reader, end: now + Self.duration)
        nextNumber += 1
        begunCount += 1
        leases.append(lease)
        return lease
    }

    /// The lease, if it has not ended.
    mutating func find(_ id: String, at now: ContinuousClock.Instant) -> Lease? {
        dropEnded(at: now)
        return leases.first { $0.id == id }
    }

    mutating func renew(_ id: String, at now: ContinuousClock.Instant) {
        guard let index = leases.firstIndex(where: { $0.id == id }) else { return }
        leases[index].end = now + Self.duration
    }

    /// Whether there was one.
    @discardableResult
    mutating func end(_ id: String) -> Bool {
        let before = leases.count
        leases.removeAll { $0.id == id }
        return leases.count < before
    }

    /// Ends all leases of bytes that are gone.
    mutating func end(incarnation: String) {
        leases.removeAll { $0.incarnation == incarnation }
    }

    /// Whether it is the turn of a reader.
    func isActive(_ id: String) -> Bool { leases.first?.id == id }

    /// The readers of the same bytes that came before.
    func readers(before id: String) -> [String] {
        guard let index = leases.firstIndex(where: { $0.id == id }) else { return [] }
        return leases[..<index].compactMap { lease in
            lease.incarnation == leases[index].incarnation ? lease.reader : nil
        }
    }

    mutating func dropEnded(at now: ContinuousClock.Instant) {
        leases.removeAll { $0.end <= now }
    }
}
