import CheckpointModel

/// Workers that come back: an engine with several models runs one whole session for each, one after the
/// other and on the same addresses, before it answers the one call that began the update.
///
/// Each session of a worker has a socket of its own, so that no message can go to a connection that has
/// ended. When the worker has come for one session, the address leads to the socket of the next one: it may come
/// back while others still commit. Its next session begins when all workers of its engine are back.
extension WorkerLink {
    /// A worker of the session has come: its address is that of its next session from now on.
    mutating func prepareNext(_ worker: Int) throws(WorkerError) {
        let place = places[worker]
        guard nextLanes[place] == nil, session.failure == nil,
            configuration.repeatingEngines.contains(session.endpoints[worker].engine)
        else { return }
        nextLanes[place] = try nextLane(place)
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
        begin(lanes.indices.filter { nextLanes[$0]?.isTaken == true })
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
        let next = nextLanes.compactMap(\.self)
        var poller = ZeroMQPoller(
            next.map(\.monitor), descriptor: signal.readDescriptor, table: context.table)
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
            for place in nextLanes.indices { try nextLanes[place]?.readEvents() }
            if let next = returned(waiting) { return next }
            let now = ContinuousClock.now
            if now >= configuration.deadline { return .failed(lateError(waiting)) }
            let left = Self.milliseconds(now.duration(to: configuration.deadline)) + 1
            let pause =
                returnedWorkers.isEmpty
                ? Self.pollMillisecondsMax : Self.milliseconds(configuration.repeatGrace) + 1
            try poller.wait(milliseconds: min(left, pause))
        }
    }

    /// The next session when an engine is complete again and none is half-way.
    private mutating func returned(_ waiting: Set<String>) -> Next? {
        let now = ContinuousClock.now
        var complete: [Int] = []
        var isHalfWay = false
        for engine in waiting.sorted() {
            let workers = lanes.indices.filter { configuration.endpoints[$0].engine == engine }
            if workers.allSatisfy({ nextLanes[$0]?.isTaken == true }) {
                complete += workers
                continue
            }
            guard workers.contains(where: { nextLanes[$0]?.comeCount ?? 0 > 0 }) else { continue }
            isHalfWay = true
            let first = firstComers[engine] ?? now
            firstComers[engine] = first
            if let error = strayError(engine, workers, since: first, now) { return .failed(error) }
        }
        guard !isHalfWay, !complete.isEmpty, isSettled(complete.sorted(), now) else { return nil }
        return .session(complete.sorted())
    }

    /// Whether no more workers have come back for a while: of engines that only the client knows, those that
    /// belong together share a session so.
    private mutating func isSettled(_ complete: [Int], _ now: ContinuousClock.Instant) -> Bool {
        if complete != returnedWorkers {
            returnedWorkers = complete
            returnedSince = now
        }
        return complete.count == lanes.count
            || returnedSince.duration(to: now) >= configuration.repeatGrace
    }

    /// Why no session with `workers` will come about; `nil` while it may.
    private func strayError(
        _ engine: String, _ workers: [Int], since first: ContinuousClock.Instant,
        _ now: ContinuousClock.Instant
    ) -> WorkerError? {
        for worker in workers {
            guard let lane = nextLanes[worker], lane.comeCount > 0, !lane.isTaken else { continue }
            let name = "worker \(configuration.endpoints[worker].id) of \(engine)"
            return lane.goneCount > 0
                ? WorkerError(
                    .workerLost, "\(name) disconnected when it had come back for its next model")
                : WorkerError(
                    .protocolViolation,
                    "two workers came back as \(name); start one worker for each device")
        }
        guard first.duration(to: now) >= configuration.stragglerGrace else { return nil }
        let missing = workers.filter { nextLanes[$0]?.isTaken != true }
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
        returnedWorkers = []
        for place in workers {
            guard let next = nextLanes[place] else {
                preconditionFailure("only who is back begins")
            }
            retiredLanes.append(lanes[place])
            lanes[place] = next
            nextLanes[place] = nil
        }
        writer = configuration.writer(for: workers)
        let schedule = configuration.schedule
        // In the host's memory everything is there by now; rings are filled once more. Other hosts are not
        // waited for, but what workers commit is looked at as before.
        let isHost = configuration.memory.kind == .host
        session = configuration.session(
            for: workers,
            schedule: DeliverySchedule(
                buckets: schedule.buckets,
                availableCount: isHost ? schedule.buckets.count : schedule.availableCount,
                gates: schedule.gates.intersection([.release])))
        firstComers = [:]
    }

    private mutating func greetAll() throws(WorkerError) {
        for worker in places.indices {
            try lanes[places[worker]].socket.noteConnections()
            try perform(session.connected(worker))
            try prepareNext(worker)
        }
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
