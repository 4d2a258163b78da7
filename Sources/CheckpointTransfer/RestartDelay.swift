/// How long to wait before an agent is started again: half a second after its first end, twice as
/// long after each further one, 10 s at most. An agent that worked for a minute makes it forgotten.
struct RestartDelay: Sendable {
    static let first = Duration.seconds(0.5)
    static let longest = Duration.seconds(10)
    static let forgottenAfter = Duration.seconds(60)

    private var delay = Duration.zero
    private var end: ContinuousClock.Instant?

    /// Notes that an agent has ended, or could not be started; `lifetime` is how long it was ready.
    mutating func noteEnd(at instant: ContinuousClock.Instant, lifetime: Duration) {
        let isFirst = delay == .zero || lifetime >= Self.forgottenAfter
        delay = isFirst ? Self.first : min(delay * 2, Self.longest)
        end = instant
    }

    /// How long it still is; zero when it is over.
    func remaining(at instant: ContinuousClock.Instant) -> Duration {
        guard let end else { return .zero }
        return max(.zero, delay - end.duration(to: instant))
    }
}
