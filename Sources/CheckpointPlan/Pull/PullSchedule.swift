/// Who sends which chunks of a ``PullOrder``, and when: a state machine without clock, I/O or
/// chance.
///
/// After each event (a source that came, went or grew; a batch that ended) the caller calls
/// ``next(at:)`` until it returns `nil`, and starts each batch that it gets. Times are seconds of
/// any clock that never goes back.
///
/// The choice, for the earliest complete prefix and then the earliest end:
/// - An endpoint takes what it holds in the order of want. Batches are sized by duration, so a slow
///   source takes little and holds the prefix up no longer than a fast one would.
/// - An endpoint of a source sends to one endpoint of the receiver while it has batches. A
///   receiver's endpoint hears several sources when there are more of them, about as many as its
///   siblings do.
/// - Complete and partial sources alike send the first chunks that they hold; leaving to the
///   partial ones what they hold gained nothing. But receivers that start together would all fetch
///   the same chunks from the complete source and have nothing for one another. With
///   ``PullLimits/turnCount`` each fetches pieces of its own there first, a bounded way ahead, and
///   the others' pieces from the others.
/// - Near the end batches shrink: an endpoint takes half of its share of what is left, and none
///   when somebody else who is at work already would bring the chunk sooner. So all end within
///   about one chunk's time.
public struct PullSchedule: Sendable {
    /// A source; its index is its number.
    struct Source {
        var isRemoved = false
        var holdsAll: Bool
        /// The places that it holds, and those of them that are pending; of no use when it holds
        /// all.
        var held: PlaceSet
        var wanted: PlaceSet
    }

    /// One endpoint of a source that has not been removed.
    struct Lane {
        let source: Int
        let endpoint: Int
        /// The endpoint that it sends to; of no meaning without batches.
        var receiver = 0
        /// Batches under way, the oldest first.
        var batches: [Int] = []
        /// Bytes of those batches.
        var byteCount = 0
        /// Bytes a second, as measured; later batches weigh more.
        var rate: Double?
        /// When its last batch ended.
        var freedSeconds = -Double.infinity
    }

    /// A batch under way.
    struct Flight {
        let batch: PullBatch
        let places: [Int]
        let startSeconds: Double
    }

    public let order: PullOrder
    public let limits: PullLimits
    public let receiverEndpointCount: Int
    public internal(set) var arrivals: PullArrivals
    /// Bytes of chunks that have neither arrived nor are under way.
    public internal(set) var pendingByteCount = 0

    var pending: PlaceSet
    /// The pending places that no partial source holds.
    var unshared: PlaceSet
    /// How many partial sources hold each place.
    var holderCounts: [UInt32]
    var sources: [Source] = []
    /// The sources that are partial and not removed.
    var partials: [Int] = []
    var lanes: [Lane] = []
    var flights: [Int: Flight] = [:]
    var nextID = 0

    /// A pull of all chunks of `order` by a receiver with at least one endpoint.
    public init(order: PullOrder, receiverEndpointCount: Int, limits: PullLimits = PullLimits()) {
        precondition(receiverEndpointCount > 0, "a receiver has an endpoint")
        precondition(limits.depth > 0, "an endpoint can have a batch")
        precondition(
            0 <= limits.turn && limits.turn < limits.turnCount, "a receiver has one of the turns")
        self.order = order
        self.limits = limits
        self.receiverEndpointCount = receiverEndpointCount
        arrivals = PullArrivals(order: order)
        pending = PlaceSet(bound: order.count, isFull: true)
        unshared = pending
        holderCounts = [UInt32](repeating: 0, count: order.count)
        for chunk in order.chunks { pendingByteCount += order.grid.byteCount(of: chunk) }
    }

    /// Whether every chunk has arrived.
    public var isComplete: Bool { arrivals.isComplete }

    /// The number of batches under way.
    public var batchCount: Int { flights.count }

    /// How many pending chunks none of the sources holds now. A source that grows may still get
    /// them.
    public var unobtainableCount: Int {
        sources.contains { $0.holdsAll && !$0.isRemoved } ? 0 : unshared.count
    }

    /// The measured rate of a source, its endpoints together, in bytes a second; `nil` before the
    /// first batch.
    public func bytesPerSecond(of source: Int) -> Double? {
        let rates = lanes.compactMap { $0.source == source ? $0.rate : nil }
        return rates.isEmpty ? nil : rates.reduce(0, +)
    }
}

extension PullSchedule {
    /// Adds a source that holds all chunks, or none yet, and returns its number.
    public mutating func addSource(endpointCount: Int, holdsAll: Bool) -> Int {
        let none = PlaceSet(bound: holdsAll ? 0 : order.count)
        sources.append(Source(holdsAll: holdsAll, held: none, wanted: none))
        let number = sources.count - 1
        if !holdsAll { partials.append(number) }
        for endpoint in 0..<endpointCount { lanes.append(Lane(source: number, endpoint: endpoint)) }
        return number
    }

    /// Notes that a source holds more chunks; those that it held already or that nobody wants do
    /// not matter.
    public mutating func extend(_ source: Int, with chunks: some Sequence<Int>) {
        guard !sources[source].isRemoved, !sources[source].holdsAll else { return }
        for chunk in chunks {
            guard let place = order.place(of: chunk), sources[source].held.insert(place) else {
                continue
            }
            holderCounts[place] += 1
            unshared.remove(place)
            if pending.contains(place) { sources[source].wanted.insert(place) }
        }
        if sources[source].held.count == order.count { complete(source) }
    }

    /// Notes that a source holds everything now.
    public mutating func complete(_ source: Int) {
        guard !sources[source].isRemoved, !sources[source].holdsAll else { return }
        forgetHoldings(of: source)
        sources[source].holdsAll = true
    }

    /// Removes a source for good. Returns its batches that were under way, whose chunks are pending
    /// again: ending them later says nothing. The caller sees to it that their bytes cannot arrive
    /// any more where another batch puts the same chunks.
    @discardableResult
    public mutating func remove(_ source: Int) -> [PullBatch] {
        guard !sources[source].isRemoved else { return [] }
        forgetHoldings(of: source)
        sources[source].isRemoved = true
        let ids = lanes.flatMap { $0.source == source ? $0.batches : [] }
        lanes.removeAll { $0.source == source }
        return ids.compactMap { id in
            guard let flight = flights.removeValue(forKey: id) else { return nil }
            for place in flight.places { giveBack(place) }
            return flight.batch
        }
    }

    private mutating func forgetHoldings(of source: Int) {
        guard !sources[source].holdsAll else { return }
        var next = sources[source].held.first(from: 0)
        while let place = next {
            holderCounts[place] -= 1
            if holderCounts[place] == 0, pending.contains(place) { unshared.insert(place) }
            next = sources[source].held.first(from: place + 1)
        }
        partials.removeAll { $0 == source }
        sources[source].held = PlaceSet(bound: 0)
        sources[source].wanted = PlaceSet(bound: 0)
    }
}

extension PullSchedule {
    /// Ends a batch whose chunks have arrived, but for `wrong` ones, which are pending again.
    /// Whether the batch was under way: `false` when its source was removed, and then its bytes do
    /// not count.
    @discardableResult
    public mutating func finish(_ id: Int, at seconds: Double, wrong: Set<Int> = []) -> Bool {
        guard let flight = end(id, at: seconds, isMeasured: true) else { return false }
        for place in flight.places {
            let chunk = order.chunks[place]
            if wrong.contains(chunk) { giveBack(place) } else { arrivals.insert(chunk) }
        }
        return true
    }

    /// Ends a batch that failed; its chunks are pending again, and may go to the same source.
    /// Whether it was under way.
    @discardableResult
    public mutating func fail(_ id: Int, at seconds: Double) -> Bool {
        guard let flight = end(id, at: seconds, isMeasured: false) else { return false }
        for place in flight.places { giveBack(place) }
        return true
    }

    private mutating func end(_ id: Int, at seconds: Double, isMeasured: Bool) -> Flight? {
        guard let flight = flights.removeValue(forKey: id) else { return nil }
        guard let index = lanes.firstIndex(where: { $0.batches.contains(id) }) else {
            preconditionFailure("a batch under way belongs to an endpoint")
        }
        lanes[index].batches.removeAll { $0 == id }
        lanes[index].byteCount -= flight.batch.byteCount
        // A queued batch begins when the one before it ends.
        let taken = seconds - max(flight.startSeconds, lanes[index].freedSeconds)
        lanes[index].freedSeconds = max(seconds, lanes[index].freedSeconds)
        if isMeasured {
            let rate = Double(flight.batch.byteCount) / max(taken, Self.secondsMin)
            lanes[index].rate = lanes[index].rate.map { ($0 + rate) / 2 } ?? rate
        }
        return flight
    }

    /// No batch takes less: clocks have a grain.
    private static var secondsMin: Double { 1e-6 }

    private mutating func giveBack(_ place: Int) {
        pending.insert(place)
        pendingByteCount += order.grid.byteCount(of: order.chunks[place])
        if holderCounts[place] == 0 { unshared.insert(place) }
        for source in partials where sources[source].held.contains(place) {
            sources[source].wanted.insert(place)
        }
    }

    mutating func take(_ place: Int) {
        pending.remove(place)
        pendingByteCount -= order.grid.byteCount(of: order.chunks[place])
        unshared.remove(place)
        for source in partials { sources[source].wanted.remove(place) }
    }
}
