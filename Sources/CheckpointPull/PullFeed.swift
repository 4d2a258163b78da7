public import CheckpointPlan
import Synchronization

/// What of a checkpoint has arrived, for whoever uses it meanwhile: updates that run from it, and other hosts
/// that read it from here.
public final class PullFeed: Sendable {
    /// What a follower is told.
    public enum Event: Sendable, Hashable {
        /// So many ranges of the order are complete without a gap; all, in the end.
        case ranges(Int)
        /// The rest will not come.
        case failed(PullError)
    }

    private struct State {
        var arrivals: PullArrivals
        /// One more than the last place that has arrived.
        var end = 0
        var failure: PullError?
        var followers: [Int: @Sendable (Event) -> Void] = [:]
        var nextFollower = 0
    }

    public let order: PullOrder
    private let state: Mutex<State>

    public init(order: PullOrder) {
        self.order = order
        state = Mutex(State(arrivals: PullArrivals(order: order)))
    }

    public var isComplete: Bool { state.withLock { $0.arrivals.isComplete } }

    public var arrivedChunkCount: Int { state.withLock { $0.arrivals.count } }

    /// The places that have arrived, as few runs as there are.
    public var runs: [Range<Int>] {
        state.withLock { state in
            var runs: [Range<Int>] = []
            var start: Int?
            var place = state.arrivals.completeChunkCount
            if place > 0 { runs.append(0..<place) }
            while place < state.end {
                let isHere = state.arrivals.contains(order.chunks[place])
                if isHere, start == nil { start = place }
                if !isHere, let first = start.take() { runs.append(first..<place) }
                place += 1
            }
            if let start { runs.append(start..<state.end) }
            return runs
        }
    }

    /// Calls `body` with what is there, and then with every change until ``unfollow(_:)``. Calls come one at
    /// a time; they must not call back.
    public func follow(_ body: @escaping @Sendable (Event) -> Void) -> Int {
        state.withLock { state in
            state.nextFollower += 1
            state.followers[state.nextFollower] = body
            body(.ranges(state.arrivals.completeRangeCount))
            if let failure = state.failure { body(.failed(failure)) }
            return state.nextFollower
        }
    }

    public func unfollow(_ follower: Int) {
        state.withLock { $0.followers[follower] = nil }
    }

    /// Waits until everything is there; throws when it will not come, or the task is cancelled.
    public func waitUntilComplete() async throws(PullError) {
        let (events, continuation) = AsyncStream.makeStream(of: Event.self)
        let follower = follow { continuation.yield($0) }
        defer { unfollow(follower) }
        for await event in events {
            switch event {
            case .ranges(let count) where count == order.rangeCount: return
            case .ranges: continue
            case .failed(let error): throw error
            }
        }
        throw PullError(.cancelled, "waiting for the checkpoint was cancelled")
    }

    func insert(_ chunks: [Int]) {
        state.withLock { state in
            let before = state.arrivals.completeRangeCount
            for chunk in chunks {
                state.arrivals.insert(chunk)
                if let place = order.place(of: chunk) { state.end = max(state.end, place + 1) }
            }
            let after = state.arrivals.completeRangeCount
            guard after > before else { return }
            for body in state.followers.values { body(.ranges(after)) }
        }
    }

    func fail(_ error: PullError) {
        state.withLock { state in
            guard state.failure == nil else { return }
            state.failure = error
            for body in state.followers.values { body(.failed(error)) }
        }
    }
}
