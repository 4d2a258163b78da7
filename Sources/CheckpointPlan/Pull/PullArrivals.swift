/// Which chunks of an order have arrived, and how far it is complete. Arrivals may come in any
/// order.
public struct PullArrivals: Hashable, Sendable {
    public let order: PullOrder
    private var missing: PlaceSet

    public init(order: PullOrder) {
        self.order = order
        missing = PlaceSet(bound: order.count, isFull: true)
    }

    /// Notes a chunk of the grid; whether it was wanted and had not arrived before.
    @discardableResult
    public mutating func insert(_ chunk: Int) -> Bool {
        order.place(of: chunk).map { missing.remove($0) } ?? false
    }

    public func contains(_ chunk: Int) -> Bool {
        order.place(of: chunk).map { !missing.contains($0) } ?? false
    }

    /// The number of chunks that have arrived.
    public var count: Int { order.count - missing.count }

    public var isComplete: Bool { missing.isEmpty }

    /// How many chunks have arrived without a gap, from the first of the order on.
    public var completeChunkCount: Int { missing.first(from: 0) ?? order.count }

    /// How many ranges are complete without a gap, from the first of the order on.
    public var completeRangeCount: Int { order.rangeCount(completeWith: completeChunkCount) }
}
