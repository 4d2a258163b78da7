import CheckpointModel

/// Who may read which checkpoint from this host. One reads at a time; the others wait for their turn, and are
/// told of other readers, from whom they can read as well.
///
/// A turn lasts as long as nobody waits, or as bytes arrive: a reader tells how many it has when it renews its
/// lease. One that gets none gives way to the next, and gets no turn for a while. Since a reader may say what
/// it likes, no turn lasts longer than the whole checkpoint takes at a modest rate.
struct LeaseBook {
    struct Lease {
        let id: String
        let checkpoint: CheckpointName
        let incarnation: String
        /// Bytes that there are to read.
        let byteCount: Int
        /// Where others can read from this reader.
        let reader: String?
        /// The address that the reader asks from; `nil` where there is none.
        let peer: String?
        var end: ContinuousClock.Instant
        /// Bytes that the reader says it has from here.
        var receivedByteCount = 0
        /// Until when others go before it, since it has had a turn and got nothing.
        var restEnd: ContinuousClock.Instant?
    }

    /// Why there is no lease.
    enum Refusal: Error {
        case tooMany
        /// This reader has as many as one may have.
        case tooManyOfOne
    }

    private struct Turn {
        let id: String
        let begin: ContinuousClock.Instant
        /// When bytes have arrived last.
        var progress: ContinuousClock.Instant
    }

    /// A reader that does not say for so long that it goes on is gone, and one that gets nothing for so long
    /// gives way.
    static let duration = Duration.seconds(10)
    /// How long others go before one that has had a turn for nothing.
    static let rest = Duration.seconds(60)
    static let countMax = 4096
    /// Leases of one address, and of one reader's URL.
    static let peerCountMax = 64
    static let readerLeaseCountMax = 8
    /// Readers that one is told of.
    static let readerCountMax = 32
    /// The longest turn beside others that wait: so long, and so many bytes in a second.
    private static let turnMax = Duration.seconds(30)
    private static let bytesPerSecondMin = 100_000_000

    /// In the order in which they came.
    private var leases: [Lease] = []
    /// The ids in the order of their turns.
    private var queue: [String] = []
    private var turn: Turn?
    private var nextNumber = 1
    private(set) var begunCount = 0

    var count: Int { leases.count }

    /// A lease of `byteCount` bytes.
    mutating func begin(
        _ checkpoint: CheckpointName, incarnation: String, byteCount: Int, reader: String?,
        peer: String? = nil, at now: ContinuousClock.Instant
    ) throws(Refusal) -> Lease {
        dropEnded(at: now)
        guard leases.count < Self.countMax else { throw .tooMany }
        let ofPeer = peer.map { peer in leases.count { $0.peer == peer } } ?? 0
        let ofReader = reader.map { reader in leases.count { $0.reader == reader } } ?? 0
        guard ofPeer < Self.peerCountMax, ofReader < Self.readerLeaseCountMax else {
            throw .tooManyOfOne
        }
        let suffix = String(UInt64.random(in: .min ... .max), radix: 16)
        let lease = Lease(
            id: "lease-\(nextNumber)-\(suffix)", checkpoint: checkpoint, incarnation: incarnation,
            byteCount: byteCount, reader: reader, peer: peer, end: now + Self.duration)
        nextNumber += 1
        begunCount += 1
        leases.append(lease)
        queue.append(lease.id)
        return lease
    }

    /// The lease, if it has not ended.
    mutating func find(_ id: String, at now: ContinuousClock.Instant) -> Lease? {
        dropEnded(at: now)
        return leases.first { $0.id == id }
    }

    /// Goes on with a lease; the reader has so many bytes from here, where it says so.
    mutating func renew(_ id: String, received: Int? = nil, at now: ContinuousClock.Instant) {
        guard let index = leases.firstIndex(where: { $0.id == id }) else { return }
        leases[index].end = now + Self.duration
        let count = min(received ?? 0, leases[index].byteCount)
        guard count > leases[index].receivedByteCount else { return }
        leases[index].receivedByteCount = count
        leases[index].restEnd = nil
        if turn?.id == id { turn?.progress = now }
    }

    /// Whether there was one.
    @discardableResult
    mutating func end(_ id: String) -> Bool {
        let before = leases.count
        remove { $0.id == id }
        return leases.count < before
    }

    /// Ends all leases of bytes that are gone.
    mutating func end(incarnation: String) {
        remove { $0.incarnation == incarnation }
    }

    mutating func dropEnded(at now: ContinuousClock.Instant) {
        remove { $0.end <= now }
    }

    private mutating func remove(_ isGone: (Lease) -> Bool) {
        guard leases.contains(where: isGone) else { return }
        leases.removeAll(where: isGone)
        let left = Set(leases.map(\.id))
        queue.removeAll { !left.contains($0) }
        if let turn, !left.contains(turn.id) { self.turn = nil }
    }

    /// The other readers of the same bytes that can be read from: those who came before, and who have read here.
    /// Of many those that came first, who have most, and those that came last before it.
    func readers(beside id: String) -> [String] {
        guard let index = leases.firstIndex(where: { $0.id == id }) else { return [] }
        let own = leases[index]
        var readers: [String] = []
        var known: Set<String> = []
        for (place, lease) in leases.enumerated() {
            guard lease.incarnation == own.incarnation, let reader = lease.reader,
                place < index || lease.receivedByteCount > 0, reader != own.reader,
                known.insert(reader).inserted
            else { continue }
            readers.append(reader)
        }
        guard readers.count > Self.readerCountMax else { return readers }
        let half = Self.readerCountMax / 2
        return Array(readers.prefix(half) + readers.suffix(half))
    }

    // MARK: Turns

    /// Whether it is the turn of a reader.
    mutating func isActive(_ id: String, at now: ContinuousClock.Instant) -> Bool {
        if let turn, queue.count > 1, isOver(turn, at: now) { pass(turn, at: now) }
        if turn == nil, let next = next(at: now) {
            turn = Turn(id: next, begin: now, progress: now)
        }
        return turn?.id == id
    }

    private func isOver(_ turn: Turn, at now: ContinuousClock.Instant) -> Bool {
        let byteCount = leases.first { $0.id == turn.id }?.byteCount ?? 0
        return turn.progress.duration(to: now) >= Self.duration
            || turn.begin.duration(to: now)
                >= Self.turnMax + .seconds(byteCount / Self.bytesPerSecondMin)
    }

    /// Ends a turn; its reader is the last one now.
    private mutating func pass(_ turn: Turn, at now: ContinuousClock.Instant) {
        self.turn = nil
        queue.removeAll { $0 == turn.id }
        queue.append(turn.id)
        guard let index = leases.firstIndex(where: { $0.id == turn.id }),
            turn.progress == turn.begin
        else { return }
        let idle = leases[index]
        for index in leases.indices {
            let lease = leases[index]
            // Who has one lease that is not used has more.
            let isSamePeer = idle.peer != nil && lease.peer == idle.peer
            guard lease.id == idle.id || (isSamePeer && lease.receivedByteCount == 0) else {
                continue
            }
            leases[index].restEnd = now + Self.rest
        }
    }

    /// Whose turn it is next: the first who does not rest, or else the first.
    private func next(at now: ContinuousClock.Instant) -> String? {
        let resting = Set(leases.lazy.filter { $0.restEnd.map { $0 > now } ?? false }.map(\.id))
        return queue.first { !resting.contains($0) } ?? queue.first
    }
}
