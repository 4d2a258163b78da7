import CheckpointModel

/// The protocol of one update with all of its workers, without any I/O: events in, actions out.
///
/// Nothing reaches an engine's weights before every worker has mapped the catalog, and no worker
/// commits before every worker has loaded and released. The first failure decides: it is kept, every
/// other worker is told to abort, and the session ends when they have answered or are gone.
struct UpdateSession {
    enum Action: Hashable {
        case send(worker: Int, ServerMessage)
        /// The catalog is the same for all, so it is encoded once, by whoever carries out actions.
        case sendCatalog(worker: Int)
    }

    /// What a worker owes an answer to; the answers come in this order.
    private enum Pending: Hashable {
        case hello, catalog, bucket(Int), release, commit, abort
    }

    private struct Worker {
        /// Whether it speaks the known protocol, which has no messages for some steps.
        var isKnown = false
        var isConnected = false
        var isGone = false
        var pending: [Pending] = []
        var nextBucket = 0
        var loadedBuckets = 0
    }

    let endpoints: [WorkerEndpoint]
    let schedule: DeliverySchedule
    let hello: ServerHello
    private var workers: [Worker]
    private(set) var progress: SessionProgress
    private(set) var failure: WorkerError?
    private(set) var isCommitted = false
    /// Every load of a bucket, in the order in which they were told.
    private(set) var loads: [BucketLoad] = []
    private var availableCount: Int
    /// The gate that the session waits at.
    private(set) var waitsAt: SessionStage?
    private var permitted: Set<SessionStage> = []

    init(
        endpoints: [WorkerEndpoint], schedule: DeliverySchedule, hello: ServerHello,
        now: ContinuousClock.Instant
    ) {
        self.endpoints = endpoints
        self.schedule = schedule
        self.hello = hello
        self.availableCount = schedule.availableCount
        self.workers = endpoints.map { _ in Worker() }
        self.progress = SessionProgress(
            stage: .handshake, workers: endpoints.map { _ in WorkerReport() },
            stageStarts: [(.handshake, now)])
    }

    /// Every worker has committed, or the update failed and nobody is left to tell.
    var isOver: Bool {
        isCommitted
            || (failure != nil
                && workers.allSatisfy { !$0.isConnected || $0.isGone || $0.pending.isEmpty })
    }

    /// Buckets that every worker is done with.
    var doneCount: Int { workers.reduce(schedule.buckets.count) { min($0, $1.loadedBuckets) } }

    func isKnown(_ worker: Int) -> Bool { workers[worker].isKnown }

    /// Whether the worker has yet to answer the first message, which tells its protocol.
    func isUndecided(_ worker: Int) -> Bool { workers[worker].pending.first == .hello }

    /// Workers whose engines may hold a mixture of old and new weights.
    var hasTouchedWeights: Bool { workers.contains { $0.nextBucket > 0 } }

    /// Engines of which some workers have said hello while others have not connected.
    var incompleteEngines: Set<String> {
        guard progress.stage == .handshake else { return [] }
        let greeted = engines { progress.workers[$0].hello != nil }
        return greeted.intersection(engines { !workers[$0].isConnected })
    }

    private func engines(_ condition: (Int) -> Bool) -> Set<String> {
        Set(endpoints.indices.filter(condition).map { endpoints[$0].engine })
    }

    /// Whom the update waits for: workers that have yet to come, and those that owe an answer.
    var awaited: [String] {
        workers.indices.filter { worker in
            !progress.workers[worker].isCommitted
                && (!workers[worker].isConnected || !workers[worker].pending.isEmpty)
        }.map { "\(name(of: $0)) in \(position(of: $0))" }
    }

    /// `worker CPU-1 (pid 42) of http://…`.
    func name(of worker: Int) -> String {
        let endpoint = endpoints[worker]
        guard let hello = progress.workers[worker].hello else {
            let what = workers[worker].isConnected ? "silent" : "not connected"
            return "worker \(endpoint.id) (\(what)) of \(endpoint.engine)"
        }
        return "worker \(endpoint.id) (pid \(hello.pid)) of \(endpoint.engine)"
    }
}

// MARK: - Events

extension UpdateSession {
    mutating func connected(_ worker: Int) -> [Action] {
        guard !workers[worker].isConnected else {
            return fail(
                WorkerError(
                    .protocolViolation,
                    "a second worker connected as \(endpoints[worker].id) of "
                        + "\(endpoints[worker].engine) while the first one is being updated; start one "
                        + "worker for each device, and one update at a time"))
        }
        workers[worker].isConnected = true
        guard failure == nil else { return abort(worker) }
        workers[worker].pending = [.hello]
        return [.send(worker: worker, .hello(hello))]
    }

    mutating func disconnected(_ worker: Int) -> [Action] {
        guard workers[worker].isConnected, !workers[worker].isGone else { return [] }
        workers[worker].isGone = true
        if progress.workers[worker].isCommitted { return [] }
        if endsWithItsRelease(worker) {
            workers[worker].pending = []
            return committed(worker, 0)
        }
        return fail(
            WorkerError(
                .workerLost, "\(name(of: worker)) disconnected during \(position(of: worker))"))
    }

    mutating func malformed(_ worker: Int, _ why: String) -> [Action] {
        fail(
            WorkerError(
                .protocolViolation,
                "\(name(of: worker)) sent a message that is none of the protocol: \(why); install the "
                    + "same version of checkpoint-engine on both sides"))
    }

    /// So many buckets lie complete in the memory of every worker.
    mutating func available(_ count: Int) -> [Action] {
        availableCount = max(availableCount, count)
        guard failure == nil, progress.stage == .reload else { return [] }
        return workers.indices.flatMap { sendBuckets(to: $0) }
    }

    /// A gated stage may begin.
    mutating func permit(_ stage: SessionStage, at now: ContinuousClock.Instant) -> [Action] {
        permitted.insert(stage)
        guard failure == nil, waitsAt == stage else { return [] }
        return advance(to: stage, at: now)
    }

    /// A failure outside the session: the engine's HTTP call, the deadline, the user.
    mutating func fail(_ error: WorkerError) -> [Action] {
        guard failure == nil, !isCommitted else { return [] }
        failure = error
        return workers.indices.flatMap { abort($0) }
    }

    mutating func received(
        _ message: WorkerMessage, from worker: Int, at now: ContinuousClock.Instant
    )
        -> [Action]
    {
        guard !workers[worker].pending.isEmpty else {
            return malformed(worker, "an unexpected \(message.type)")
        }
        let pending = workers[worker].pending.removeFirst()
        if case .error(let reported) = message { return failed(reported, worker) }
        if failure != nil { return [] }
        switch (pending, message) {
        case (.hello, .hello(let hello)): return greeted(hello, by: worker, at: now)
        case (.catalog, .ready): return advance(to: .reload, at: now)
        case (.bucket(let index), .loaded(let loadedIndex, let byteCount, let microseconds))
        where loadedIndex == index:
            // What the worker tells, but not more than there was.
            let start = progress.stageStarts.first?.at ?? now
            let duration = min(.microseconds(microseconds), start.duration(to: now))
            loads.append(
                BucketLoad(
                    worker: worker, bucket: index, byteCount: byteCount, end: now,
                    duration: duration))
            return loaded(index, byteCount, duration, worker, at: now)
        case (.release, .released): return advance(to: .commit, at: now)
        case (.commit, .committed(let microseconds)):
            return committed(worker, microseconds)
        case (.hello, _), (.catalog, _), (.bucket, _), (.release, _), (.commit, _), (.abort, _):
            return malformed(worker, "\(message.type) as the answer to \(pending)")
        }
    }
}

// MARK: - Workers of the known protocol

extension UpdateSession {
    mutating func markKnown(_ worker: Int) {
        workers[worker].isKnown = true
        progress.workers[worker].isKnown = true
    }

    /// What the worker says by an empty answer.
    func positiveAnswer(of worker: Int) -> WorkerMessage? {
        switch workers[worker].pending.first {
        case .bucket(let index):
            .loaded(
                index: index, byteCount: schedule.buckets[index].byteCount, microseconds: 0)
        case .release: .released
        case .commit: .committed(microseconds: 0)
        case .hello, .catalog, .abort, nil: nil
        }
    }

    /// Workers of the older generation commit when they release, and go: whether they did is told
    /// by their engine's answer.
    private func endsWithItsRelease(_ worker: Int) -> Bool {
        workers[worker].isKnown && failure == nil && progress.stage >= .release
            && !workers[worker].pending.contains(.release)
    }
}

// MARK: - Steps

extension UpdateSession {
    private mutating func greeted(
        _ hello: WorkerHello, by worker: Int, at now: ContinuousClock.Instant
    ) -> [Action] {
        progress.workers[worker].hello = hello
        guard hello.worker == endpoints[worker].id.description else {
            return malformed(
                worker, "it calls itself \(hello.worker) on the address of \(endpoints[worker].id)")
        }
        guard self.hello.versions.contains(hello.version) else {
            return malformed(worker, "version \(hello.version) was not offered")
        }
        return advance(to: .catalog, at: now)
    }

    private mutating func loaded(
        _ index: Int, _ byteCount: Int, _ duration: Duration, _ worker: Int,
        at now: ContinuousClock.Instant
    ) -> [Action] {
        guard byteCount == schedule.buckets[index].byteCount else {
            return malformed(
                worker,
                "it loaded \(byteCount) bytes of bucket \(index), which has "
                    + "\(schedule.buckets[index].byteCount)")
        }
        workers[worker].loadedBuckets += 1
        progress.workers[worker].loadedByteCount += byteCount
        progress.workers[worker].loadDuration += duration
        if workers[worker].loadedBuckets == schedule.buckets.count {
            return advance(to: .release, at: now)
        }
        return sendBuckets(to: worker)
    }

    private mutating func committed(_ worker: Int, _ microseconds: Int) -> [Action] {
        progress.workers[worker].isCommitted = true
        progress.workers[worker].commitDuration = .microseconds(microseconds)
        isCommitted = progress.workers.allSatisfy(\.isCommitted)
        return []
    }

    private mutating func failed(_ reported: WorkerFailure, _ worker: Int) -> [Action] {
        guard failure == nil else { return [] }
        let stage = reported.stage == .bucket ? position(of: worker) : "\(reported.stage.rawValue)"
        return fail(
            WorkerError(
                .workerFailed, "\(name(of: worker)) failed in \(stage): \(reported.message)",
                cause: reported.traceback.isEmpty ? nil : reported.traceback))
    }

    /// Enters `stage` once every worker has answered all of the stage before.
    private mutating func advance(to stage: SessionStage, at now: ContinuousClock.Instant)
        -> [Action]
    {
        guard progress.stage < stage, workers.allSatisfy({ $0.isConnected && $0.pending.isEmpty }),
            stage != .release
                || workers.allSatisfy({ $0.loadedBuckets == schedule.buckets.count })
        else { return [] }
        if schedule.gates.contains(stage), !permitted.contains(stage) {
            waitsAt = stage
            return []
        }
        waitsAt = nil
        progress.stage = stage
        progress.stageStarts.append((stage, now))
        switch stage {
        case .handshake: return []
        case .catalog: return sendCatalog(at: now)
        case .reload:
            if schedule.buckets.isEmpty { return advance(to: .release, at: now) }
            return workers.indices.flatMap { sendBuckets(to: $0) }
        case .release: return toAll(.release) { .send(worker: $0, .release) }
        case .commit: return toAll(.commit) { .send(worker: $0, .commit) }
        }
    }

    private mutating func toAll(_ pending: Pending, _ action: (Int) -> Action) -> [Action] {
        workers.indices.filter { !progress.workers[$0].isCommitted }.map { worker in
            workers[worker].pending.append(pending)
            return action(worker)
        }
    }

    private mutating func sendBuckets(to worker: Int) -> [Action] {
        let credits = progress.workers[worker].hello?.credits ?? 1
        var actions: [Action] = []
        while workers[worker].pending.count < credits,
            workers[worker].nextBucket < min(availableCount, schedule.buckets.count)
        {
            let index = workers[worker].nextBucket
            let bucket = schedule.buckets[index]
            workers[worker].nextBucket += 1
            workers[worker].pending.append(.bucket(index))
            actions.append(
                .send(
                    worker: worker,
                    .bucket(index: index, first: bucket.first, count: bucket.count)))
        }
        return actions
    }

    private mutating func abort(_ worker: Int) -> [Action] {
        guard let failure, workers[worker].isConnected, !workers[worker].isGone,
            !progress.workers[worker].isCommitted, !workers[worker].pending.contains(.abort)
        else { return [] }
        // A known worker raises what it is told, and answers nothing.
        if !workers[worker].isKnown { workers[worker].pending.append(.abort) }
        return [.send(worker: worker, .abort(reason: failure.message))]
    }

    /// Known workers have no catalog: each bucket describes its tensors.
    private mutating func sendCatalog(at now: ContinuousClock.Instant) -> [Action] {
        let actions = toAll(.catalog) { .sendCatalog(worker: $0) }
        for worker in workers.indices where workers[worker].isKnown {
            workers[worker].pending.removeAll { $0 == .catalog }
        }
        let sent = actions.filter { action in
            if case .sendCatalog(let worker) = action { !workers[worker].isKnown } else { true }
        }
        return sent + advance(to: .reload, at: now)
    }

    /// Where a worker is, for messages: `bucket 3 of 12`.
    private func position(of worker: Int) -> String {
        switch progress.stage {
        case .handshake: "the handshake"
        case .catalog: "the exchange of the catalog"
        case .reload:
            workers[worker].loadedBuckets == schedule.buckets.count
                ? "the wait for other workers"
                : "bucket \(workers[worker].loadedBuckets) of \(schedule.buckets.count)"
        case .release: "the release"
        case .commit: "the commit"
        }
    }
}
