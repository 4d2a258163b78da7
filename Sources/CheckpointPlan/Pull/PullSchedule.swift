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
///   partial ones what they hold gained nothing.
/// - Nothing is asked for beyond ``openPlaceCount``: there is no room for it yet.
/// - A chunk is in one batch at a time, and a batch keeps its chunks until whoever reads it has
///   answered or is dead (``close(_:)``).
/// - Near the end batches shrink: an endpoint takes half of its share of what is left, and none
///   when somebody else who is at work already would bring the chunk sooner. So all end within
///   about one chunk's time.
public struct PullSchedule: Sendable {
    /// A source; its index is its number.
    struct Source {
        var isRetired = false
        var holdsAll: Bool
        /// The places that it holds, and those of them that are pending; of no use when it holds
        /// all.
        var held: PlaceSet
        var wanted: PlaceSet
    }

    /// One endpoint of a source; a retired one until its last batch has ended.
    struct Lane {
        let source: Int
        let endpoint: Int
        var isRetired = false
        /// The endpoint that it sends to; of no meaning without batches.
        var receiver = 0
        /// Batches under way, the oldest first.
        var batches: [Int] = []
        /// Bytes of those batches.
        var byteCount = 0
        var rate = PullRate()
    }

    /// A batch under way.
    struct Flight {
        let batch: PullBatch
        let places: [Int]
        /// Whether its reader may still write its chunks.
        var isOwed = true
    }

    public let order: PullOrder
    public let limits: PullLimits
    public let receiverEndpointCount: Int
    public internal(set) var arrivals: PullArrivals
    /// Bytes of chunks that have neither arrived nor are under way.
    public internal(set) var pendingByteCount = 0
    /// How many places, from the first on, have room here.
    public private(set) var openPlaceCount: Int

    var pending: PlaceSet
    var sources: [Source] = []
    /// The sources that are partial and not retired.
    var partials: [Int] = []
    var lanes: [Lane] = []
    var flights: [Int: Flight] = [:]
    /// The receiver's endpoints that get no batches.
    var closed: Set<Int> = []
    var nextID = 0

    /// A pull of all chunks of `order` by a receiver with at least one endpoint, which has room for
    /// the first `openPlaceCount` of them.
    public init(
        order: PullOrder, receiverEndpointCount: Int, openPlaceCount: Int = .max,
        limits: PullLimits = PullLimits()
    ) {
        precondition(receiverEndpointCount > 0, "a receiver has an endpoint")
        precondition(limits.depth > 0, "an endpoint can have a batch")
        self.order = order
        self.limits = limits
        self.receiverEndpointCount = receiverEndpointCount
        arrivals = PullArrivals(order: order)
        self.openPlaceCount = openPlaceCount
        pending = PlaceSet(bound: order.count, isFull: true)
        for chunk in order.chunks { pendingByteCount += order.grid.byteCount(of: chunk) }
    }

    /// Whether every chunk has arrived.
    public var isComplete: Bool { arrivals.isComplete }

    /// Whether everything that there is room for has arrived, and that is not all.
    public var waitsForRoom: Bool {
        flights.isEmpty && (pending.first(from: 0).map { $0 >= openPlaceCount } ?? false)
    }

    /// Notes that there is room for the first `count` places now.
    public mutating func open(_ count: Int) { openPlaceCount = max(openPlaceCount, count) }
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
        guard !sources[source].isRetired, !sources[source].holdsAll else { return }
        for chunk in chunks {
            guard let place = order.place(of: chunk), sources[source].held.insert(place) else {
                continue
            }
            if pending.contains(place) { sources[source].wanted.insert(place) }
        }
        if sources[source].held.count == order.count { complete(source) }
    }

    /// Notes that a source holds everything now.
    public mutating func complete(_ source: Int) {
        guard !sources[source].isRetired, !sources[source].holdsAll else { return }
        forgetHoldings(of: source)
        sources[source].holdsAll = true
    }

    /// Gives a source no more batches, for good. Those under way go on, and keep their chunks until
    /// they have ended: what arrives late lands on nobody else's bytes.
    public mutating func retire(_ source: Int) {
        guard !sources[source].isRetired else { return }
        forgetHoldings(of: source)
        sources[source].isRetired = true
        lanes.removeAll { $0.source == source && $0.batches.isEmpty }
        for index in lanes.indices where lanes[index].source == source {
            lanes[index].isRetired = true
        }
    }

    private mutating func forgetHoldings(of source: Int) {
        partials.removeAll { $0 == source }
        sources[source].held = PlaceSet(bound: 0)
        sources[source].wanted = PlaceSet(bound: 0)
    }
}

extension PullSchedule {
    /// Ends a batch whose chunks have arrived, but for `wrong` ones, which are pending again.
    public mutating func finish(_ id: Int, at seconds: Double, wrong: Set<Int> = []) {
        for place in end(id, at: seconds, isMeasured: true).places {
            let chunk = order.chunks[place]
            if wrong.contains(chunk) { giveBack(place) } else { arrivals.insert(chunk) }
        }
    }

    /// Ends a batch that failed; its chunks are pending again, and may go to the same source.
    public mutating func fail(_ id: Int, at seconds: Double) {
        for place in end(id, at: seconds, isMeasured: false).places { giveBack(place) }
    }

    /// The batch has to be under way, and its reader to have answered or to be dead.
    private mutating func end(_ id: Int, at seconds: Double, isMeasured: Bool) -> Flight {
        guard let flight = flights.removeValue(forKey: id),
            let index = lanes.firstIndex(where: { $0.batches.contains(id) })
        else { preconditionFailure("a batch ends once") }
        lanes[index].batches.removeAll { $0 == id }
        guard !lanes[index].isRetired || !lanes[index].batches.isEmpty else {
            lanes.remove(at: index)
            return flight
        }
        lanes[index].byteCount -= flight.batch.byteCount
        if isMeasured {
            lanes[index].rate.end(
                flight.batch.byteCount, at: seconds, halfLife: limits.batchSeconds)
        } else {
            lanes[index].rate.skip(to: seconds)
        }
        return flight
    }

    private mutating func giveBack(_ place: Int) {
        pending.insert(place)
        pendingByteCount += order.grid.byteCount(of: order.chunks[place])
        for source in partials where sources[source].held.contains(place) {
            sources[source].wanted.insert(place)
        }
    }

    mutating func take(_ place: Int) {
        pending.remove(place)
        pendingByteCount -= order.grid.byteCount(of: order.chunks[place])
        for source in partials { sources[source].wanted.remove(place) }
    }
}
