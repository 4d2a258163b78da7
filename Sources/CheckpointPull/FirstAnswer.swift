/// Asks one source after the other until one has what is wanted; one that is silent is not waited for before
/// the next is asked.
struct FirstAnswer: Sendable {
    typealias Refusal = SourceClient.Refusal

    /// How long a source may be silent until the next one is asked as well.
    let silenceMax: Duration
    let isCancelled: @Sendable () -> Bool

    private static let tick = Duration.milliseconds(50)

    enum Outcome<Value: Sendable>: Sendable {
        case found(Value)
        /// What each source said, in their order.
        case refused([Refusal])
    }

    private enum Event<Value: Sendable>: Sendable {
        case answer(index: Int, Result<Value, Refusal>)
        case tick
    }

    /// The first success. Calls that are under way then go on by themselves, so that they can end what they have
    /// begun.
    func of<Value: Sendable>(
        _ sources: [SourceAddress],
        ask: @escaping @Sendable (SourceAddress) async -> Result<Value, Refusal>
    ) async throws(PullError) -> Outcome<Value> {
        let (events, continuation) = AsyncStream.makeStream(of: Event<Value>.self)
        let clock = Task {
            while !Task.isCancelled {
                try? await Task.sleep(for: Self.tick)
                continuation.yield(.tick)
            }
        }
        defer {
            clock.cancel()
            continuation.finish()
        }
        var refusals: [Int: Refusal] = [:]
        var askedCount = 0
        var askedAt = ContinuousClock.now
        func askNext() {
            guard askedCount < sources.count else { return }
            let index = askedCount
            askedCount += 1
            askedAt = .now
            Task { continuation.yield(.answer(index: index, await ask(sources[index]))) }
        }
        askNext()
        for await event in events {
            if isCancelled() || Task.isCancelled { break }
            switch event {
            case .answer(_, .success(let value)): return .found(value)
            case .answer(let index, .failure(let refusal)):
                refusals[index] = refusal
                if refusals.count == sources.count {
                    return .refused(sources.indices.compactMap { refusals[$0] })
                }
                askNext()
            case .tick:
                if askedAt.duration(to: .now) >= silenceMax { askNext() }
            }
        }
        throw PullError(.cancelled, "the pull was cancelled")
    }
}
