import Synchronization

/// Tells a pull through a ring how much of it has been delivered, so that its place can be taken again.
public final class PullRoom: Sendable {
    private struct State {
        var releasedCount = 0
        var follower: (@Sendable (Int) -> Void)?
    }

    private let state = Mutex(State())

    public init() {}

    /// Tells that nobody needs the first `rangeCount` ranges any more.
    public func release(_ rangeCount: Int) {
        state.withLock { state in
            guard rangeCount > state.releasedCount else { return }
            state.releasedCount = rangeCount
            state.follower?(rangeCount)
        }
    }

    /// Calls `body` with what has been released, and with every change; one follower at a time. Calls come one
    /// at a time; they must not call back.
    func follow(_ body: (@Sendable (Int) -> Void)?) {
        state.withLock { state in
            state.follower = body
            if state.releasedCount > 0 { body?(state.releasedCount) }
        }
    }
}
