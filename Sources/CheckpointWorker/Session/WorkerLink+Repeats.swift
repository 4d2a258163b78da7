import CNative
import CheckpointModel

/// Workers that come back: an engine with several models runs one whole session for each, one after the
/// other and on the same addresses, before it answers the one call that began the update.
///
/// The sockets stay bound. A worker's next connection may come while others still commit, and before its
/// last one is seen to end; its next session begins when all workers of its engine are back.
extension WorkerLink {
    /// How often a worker has come and gone.
    struct Visits {
        var comeCount = 0
        var goneCount = 0
        var sessionCount = 1

        /// Whether it waits for its next session, with its last connection ended.
        var isBack: Bool { comeCount == sessionCount + 1 && goneCount == sessionCount }
        /// Whether it has come for a next session, even if it has gone again.
        var hasReturned: Bool { comeCount > sessionCount }
    }

    /// Notes that a worker of the session has come. Whether that is for its next session.
    mutating func hasReturned(_ worker: Int) -> Bool {
        let place = places[worker]
        visits[place].comeCount += 1
        return visits[place].hasReturned && session.hasLeft(worker)
            && configuration.repeatingEngines.contains(session.endpoints[worker].engine)
    }

    /// Serves sessions until every engine that may repeat has answered. Returns the loads of all buckets.
    mutating func serveRepeats() throws(WorkerError) -> [BucketLoad] {
        var loads: [BucketLoad] = []
        while true {
            switch try awaitNext() {
            case .none: return loads
            case .failed(let error): try refuse(error)
            case .session(let workers):
                do throws(WorkerError) { try observer.linkRepeats(for: workers) } catch {
                    try refuse(error)
                }
                begin(workers)
                try greetAll()
                try loop()
                loads += session.loads.map { $0.moved(to: places[$0.worker]) }
            }
        }
    }

    /// Ends the update with `error`. Workers that are back wait for their first message: they are told
    /// why there is none.
    private mutating func refuse(_ error: WorkerError) throws(WorkerError) {
        begin(visits.indices.filter { visits[$0].isBack })
        try perform(session.fail(error))
        try greetAll()
        try loop()
        throw error
    }

    private enum Next {
        /// Every engine has answered.
        case none
        case session([Int])
        case failed(WorkerError)
    }

    /// Engines that may repeat and have not answered.
    private var waitingEngines: Set<String> {
        configuration.repeatingEngines.subtracting(answers.keys)
    }

    private mutating func awaitNext() throws(WorkerError) -> Next {
        firstComers = [:]
        var poller = ZeroMQPoller(
            allMonitors, descriptor: signal.readDescriptor, table: context.table)
        while true {
            for event in signal.take() {
                switch event {
                case .fail(let error): return .failed(error)
                case .engineAnswered(let engine):
                    answers[engine] = ContinuousClock.now + configuration.answerGrace
                case .available, .permit: break
                }
            }
            let waiting = waitingEngines
            if waiting.isEmpty { return .none }
            try readVisits()
            if let next = returned(waiting) { return next }
            let now = ContinuousClock.now
            if now >= configuration.deadline { return .failed(lateError(waiting)) }
            let left = Self.milliseconds(now.duration(to: configuration.deadline)) + 1
            try poller.wait(milliseconds: min(left, Self.pollMillisecondsMax))
        }
    }

    private mutating func readVisits() throws(WorkerError) {
        for place in allMonitors.indices {
            while let event = try allMonitors[place].receiveEvent() {
                if event == Int(CE_ZMQ_EVENT_HANDSHAKE_SUCCEEDED) {
                    visits[place].comeCount += 1
                } else if event == Int(CE_ZMQ_EVENT_DISCONNECTED) {
                    visits[place].goneCount += 1
                }
            }
        }
    }

    /// The next session when an engine is complete again and none is half-way.
    private mutating func returned(_ waiting: Set<String>) -> Next? {
        let now = ContinuousClock.now
        var complete: [Int] = []
        var isHalfWay = false
        for engine in waiting.sorted() {
            let workers = visits.indices.filter { configuration.endpoints[$0].engine == engine }
            if workers.allSatisfy({ visits[$0].isBack }) {
                complete += workers
                continue
            }
            guard workers.contains(where: { visits[$0].hasReturned }) else { continue }
            isHalfWay = true
            let first = firstComers[engine] ?? now
            firstComers[engine] = first
            if let error = strayError(engine, workers, since: first, now) { return .failed(error) }
        }
        return isHalfWay || complete.isEmpty ? nil : .session(complete.sorted())
    }

    /// Why no session with `workers` will come about; `nil` while it may.
    private func strayError(
        _ engine: String, _ workers: [Int], since first: ContinuousClock.Instant,
        _ now: ContinuousClock.Instant
    ) -> WorkerError? {
        if let lost = workers.first(where: {
            visits[$0].hasReturned && visits[$0].goneCount > visits[$0].sessionCount
        }) {
            return WorkerError(
                .workerLost,
                "worker \(configuration.endpoints[lost].id) of \(engine) disconnected when it had come "
                    + "back for its next model")
        }
        guard first.duration(to: now) >= configuration.stragglerGrace else { return nil }
        let missing = workers.filter { !visits[$0].isBack }
        return WorkerError(
            .workerLost,
            "not all workers of \(engine) came back for their next model within "
                + "\(configuration.stragglerGrace.components.seconds) s of the first: "
                + missing.map { "\(configuration.endpoints[$0].id)" }.joined(separator: ", "))
    }

    private func lateError(_ waiting: Set<String>) -> WorkerError {
        WorkerError(
            .deadlineExceeded,
            "every worker has committed, but the deadline passed before "
                + waiting.sorted().joined(separator: ", ")
                + " answered the call that started the update")
    }

    /// A session of these workers of the update, who are connected.
    private mutating func begin(_ workers: [Int]) {
        places = workers
        for place in workers { visits[place].sessionCount += 1 }
        writer = configuration.writer(for: workers)
        let schedule = configuration.schedule
        session = configuration.session(
            for: workers,
            schedule: DeliverySchedule(
                buckets: schedule.buckets, availableCount: schedule.availableCount))
        firstComers = [:]
    }

    private mutating func greetAll() throws(WorkerError) {
        for worker in places.indices { try perform(session.connected(worker)) }
    }
}

extension WorkerLink.Configuration {
    func writer(for places: [Int]) -> ServerFrames {
        ServerFrames(
            memory: memory.of(places), schedule: schedule, tensors: tensors, counters: counters,
            knownBody: catalogBody)
    }

    func session(for places: [Int], schedule: DeliverySchedule) -> UpdateSession {
        let now = ContinuousClock.now
        return UpdateSession(
            endpoints: places.map { endpoints[$0] }, schedule: schedule,
            hello: ServerHello(
                update: update, checkpoint: checkpoint, memory: memory.kind,
                deadlineMilliseconds: WorkerLink.milliseconds(now.duration(to: deadline))),
            now: now)
    }
}
