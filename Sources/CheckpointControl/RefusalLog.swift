import Hummingbird
import Logging
import Synchronization

/// Tells of requests that were refused, in one line a second at most: strangers must not fill a log.
final class RefusalLog: Sendable {
    private static let interval = Duration.seconds(1)

    private struct State {
        var next: ContinuousClock.Instant?
        var untold = 0
    }

    private let logger: Logger
    private let state = Mutex(State())

    init(_ logger: Logger) {
        self.logger = logger
    }

    /// Takes one refusal at a time `now`; `metadata` tells what was refused.
    func note(_ metadata: Logger.Metadata, now: ContinuousClock.Instant = .now) {
        let untold = state.withLock { state -> Int? in
            if let next = state.next, now < next {
                state.untold += 1
                return nil
            }
            defer { state = State(next: now + Self.interval) }
            return state.untold
        }
        guard let untold else { return }
        var metadata = metadata
        if untold > 0 { metadata["refused_since_the_last_line"] = "\(untold + 1)" }
        logger.warning("Request refused", metadata: metadata)
    }
}
