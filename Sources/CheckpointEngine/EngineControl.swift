import CheckpointModel
import CheckpointWorker
import Synchronization

/// What is done to the engines of one update around the delivery: they pause and wake up before it, and
/// go on after it has succeeded.
final class EngineControl: Sendable {
    /// How long engines may take to go on after an update that failed before it touched them.
    private static let failureGrace = Duration.seconds(5)

    private struct State {
        /// Engines that were told to pause, and not to go on since.
        var paused: Set<Int> = []
        /// Engines that have taken their weights' memory back, and not their cache's.
        var halfAwake: Set<Int> = []
        var woken: Set<Int> = []
        var pauseStart: ContinuousClock.Instant?
        var pauseEnd: ContinuousClock.Instant?
    }

    private let engines: [EngineAddress]
    private let orders: EngineOrders
    private let client: EngineClient
    private let deadline: ContinuousClock.Instant
    private let record: UpdateRecord
    private let state = Mutex(State())

    init(_ job: UpdateJob) {
        engines = job.engines.map(\.address)
        orders = job.orders
        client = job.client
        deadline = job.deadline
        record = job.record
    }

    private var isAsked: Bool { orders.pause != nil || orders.wakes }

    /// Pauses all engines, then wakes up those that sleep. Nothing is delivered before it returns.
    func begin() async throws(WorkerError) {
        guard isAsked else { return tell() }
        record.begin(with: .pause)
        defer { tell() }
        if let mode = orders.pause {
            state.withLock { $0.pauseStart = .now }
            try await all { engine async throws(WorkerError) in
                try await self.pause(engine, mode)
            }
        }
        if orders.wakes {
            try await all { engine async throws(WorkerError) in
                guard
                    try await self.client.wakeWeights(self.engines[engine], deadline: self.deadline)
                else { return }
                self.state.withLock {
                    $0.halfAwake.insert(engine)
                    $0.woken.insert(engine)
                }
            }
        }
        record.enter(.handshake)
    }

    /// Every worker has committed: caches are emptied, versions set, and then all engines go on.
    func finish() async throws(WorkerError) {
        defer { tell() }
        try await all { engine async throws(WorkerError) in
            let address = self.engines[engine]
            if self.orders.resetsPrefixCache {
                try await self.client.resetPrefixCache(
                    address, self.orders, deadline: self.deadline)
            }
            if let version = self.orders.weightVersion {
                try await self.client.setVersion(version, of: address, deadline: self.deadline)
            }
        }
        guard isAsked else { return }
        record.enter(.resume)
        let (halfAwake, paused) = state.withLock { ($0.halfAwake, $0.paused) }
        try await all(halfAwake) { engine async throws(WorkerError) in
            try await self.client.wakeCache(self.engines[engine], deadline: self.deadline)
            _ = self.state.withLock { $0.halfAwake.remove(engine) }
        }
        try await all(paused) { engine async throws(WorkerError) in
            try await self.client.resume(self.engines[engine], deadline: self.deadline)
            self.resumed(engine)
        }
    }

    /// After a failure: engines whose weights are as before go on, others stay as they are. Returns
    /// `error` with what people need to know of that.
    func failed(_ error: EngineError) async -> EngineError {
        defer { tell() }
        var notes: [String] = []
        if !record.touchesWeights { notes += await resumeUntouched() }
        let (paused, halfAwake) = state.withLock { ($0.paused, $0.halfAwake) }
        for engine in paused.subtracting(halfAwake).sorted() {
            notes.append(
                "\(engines[engine]) stays paused: update it again with a pause, or send it "
                    + EngineClient.resumeCall(of: engines[engine]))
        }
        for engine in halfAwake.sorted() {
            notes.append(
                "\(engines[engine]) has its weights' memory back, but not its cache's, and serves "
                    + "nothing: update it again, then wake it up with the tag kv_cache"
                    + (paused.contains(engine)
                        ? " and send it " + EngineClient.resumeCall(of: engines[engine]) : ""))
        }
        guard !notes.isEmpty else { return error }
        return EngineError(
            error.code, ([error.message] + notes).joined(separator: ". "), cause: error.cause)
    }
}

// MARK: - Steps

extension EngineControl {
    private func pause(_ engine: Int, _ mode: PauseMode) async throws(WorkerError) {
        // One that does not answer may have paused all the same.
        _ = state.withLock { $0.paused.insert(engine) }
        do throws(WorkerError) {
            try await client.pause(engines[engine], mode, orders, deadline: deadline)
        } catch {
            if error.code == .engineFailed || error.code == .engineUnreachable {
                _ = state.withLock { $0.paused.remove(engine) }
            }
            throw error
        }
    }

    private func resumed(_ engine: Int) {
        state.withLock { state in
            state.paused.remove(engine)
            if state.paused.isEmpty { state.pauseEnd = .now }
        }
    }

    /// Lets engines go on that hold their old weights. What ended the update does not end this.
    private func resumeUntouched() async -> [String] {
        let engines = state.withLock { $0.paused.subtracting($0.halfAwake) }
        guard !engines.isEmpty else { return [] }
        let deadline = ContinuousClock.now + Self.failureGrace
        let task = Task {
            await withTaskGroup(of: WorkerError?.self) { group in
                for engine in engines {
                    group.addTask {
                        do throws(WorkerError) {
                            try await self.client.resume(self.engines[engine], deadline: deadline)
                            self.resumed(engine)
                            return nil
                        } catch {
                            return error
                        }
                    }
                }
                return await group.reduce(into: [String]()) { notes, error in
                    if let error { notes.append(error.message) }
                }
            }
        }
        return await task.value
    }

    /// Does `step` for these engines, or for all, at the same time. Throws the first failure, which ends
    /// the others.
    private func all(
        _ chosen: Set<Int>? = nil,
        _ step: @escaping @Sendable (Int) async throws(WorkerError) -> Void
    ) async throws(WorkerError) {
        let failure = await SideBySide.firstFailure(chosen ?? Set(engines.indices), step)
        if let failure { throw failure }
    }

    /// Writes into the update's status what has become of the engines.
    private func tell() {
        guard isAsked || orders.weightVersion != nil else { return }
        let names = engines.map(\.description)
        let control = state.withLock { state in
            UpdateStatus.Control(
                pause: orders.pause,
                pausedSeconds: state.pauseStart.map {
                    $0.duration(to: state.pauseEnd ?? .now).inSeconds
                },
                stillPaused: state.paused.sorted().map { names[$0] },
                woken: state.woken.sorted().map { names[$0] },
                weightVersion: orders.weightVersion)
        }
        record.note(control)
    }
}
