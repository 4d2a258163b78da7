import CNative
public import CheckpointModel
import CheckpointNative
import Glibc

/// Carries out one ``UpdateSession``: sockets in, actions out, on the calling thread.
///
/// The call blocks until the update is over, for at most the deadline and the grace time; give it a
/// thread of its own. Other threads reach it through ``LinkSignal``.
public struct WorkerLink {
    public struct Configuration: Sendable {
        public let update: String
        public let checkpoint: String
        public let endpoints: [WorkerEndpoint]
        public let memory: WorkerMemory
        /// What is delivered, in the order of the schedule; the shard of a tensor is its segment.
        public let tensors: [TensorEntry]
        public let schedule: DeliverySchedule
        public let deadline: ContinuousClock.Instant
        /// How long a failed update waits for its workers to acknowledge the abort.
        public let abortGrace: Duration
        /// How long an engine that has answered may leave its workers uncommitted.
        public let answerGrace: Duration
        /// How long the last worker of an engine may come after the first.
        public let stragglerGrace: Duration
        /// How long workers may take to come and say hello; `nil` for the deadline alone.
        public let handshakeGrace: Duration?
        /// Tells when workers of the known protocol have let go of their memory.
        public let counters: ReferenceCounterFile?
        /// What ``CatalogMessage/body(_:)`` gives for the tensors, where it was made already.
        public let catalogBody: [UInt8]?
        /// Engines whose workers may come back for everything once more, until the engine answers.
        public let repeatingEngines: Set<String>
        /// How long workers that are back wait for others that may come as well.
        public let repeatGrace: Duration

        public init(
            update: String, checkpoint: String, endpoints: [WorkerEndpoint],
            memory: WorkerMemory, tensors: [TensorEntry], schedule: DeliverySchedule,
            deadline: ContinuousClock.Instant, abortGrace: Duration = .seconds(5),
            answerGrace: Duration = .seconds(5), stragglerGrace: Duration = .seconds(30),
            counters: ReferenceCounterFile? = nil, catalogBody: [UInt8]? = nil,
            repeatingEngines: Set<String> = [], handshakeGrace: Duration? = nil,
            repeatGrace: Duration = .zero
        ) {
            self.update = update
            self.checkpoint = checkpoint
            self.endpoints = endpoints
            self.memory = memory
            self.tensors = tensors
            self.schedule = schedule
            self.deadline = deadline
            self.abortGrace = abortGrace
            self.answerGrace = answerGrace
            self.stragglerGrace = stragglerGrace
            self.counters = counters
            self.catalogBody = catalogBody
            self.repeatingEngines = repeatingEngines
            self.handshakeGrace = handshakeGrace
            self.repeatGrace = repeatGrace
        }
    }

    static let pollMillisecondsMax = 1000
    /// Messages that are taken from one worker before the next one gets its turn.
    private static let burst = 64

    let configuration: Configuration
    let context: ZeroMQContext
    let signal: LinkSignal
    let observer: any WorkerLinkObserver
    /// Where each worker of the update is met, and where it will be in its next session.
    var lanes: [Lane]
    var nextLanes: [Lane?]
    /// Lanes of earlier sessions: their sockets hold the names that the next ones are found by.
    var retiredLanes: [Lane] = []
    /// For the connections of the lanes, which come later.
    private var descriptors: [DescriptorReservation]
    /// Where the workers of the session stand among those of the update.
    var places: [Int]
    private let delimiter: ZeroMQFrame
    var writer: ServerFrames
    var session: UpdateSession
    private var abortDeadline: ContinuousClock.Instant?
    var answers: [String: ContinuousClock.Instant] = [:]
    /// When the first worker of an engine had come, for engines that are not complete yet.
    var firstComers: [String: ContinuousClock.Instant] = [:]
    /// Workers that are back for one more session, and since when no other has come.
    var returnedWorkers: [Int] = []
    var returnedSince = ContinuousClock.now

    private var sockets: [ZeroMQSocket] { places.map { lanes[$0].socket } }
    private var monitors: [ZeroMQSocket] { places.map { lanes[$0].monitor } }

    /// Binds every endpoint's socket and then runs the session, and more of them for workers that come
    /// back; `observer` follows it. Returns the loads of all buckets; throws the first failure.
    @discardableResult
    public static func run(
        _ configuration: Configuration, context: ZeroMQContext, signal: LinkSignal,
        observer: any WorkerLinkObserver
    ) throws(WorkerError) -> [BucketLoad] {
        // Not every libzmq removes them. Who comes later finds nobody, and knows that the update is over.
        defer {
            for endpoint in configuration.endpoints {
                ZeroMQSocket.removeName(endpoint.socketPath)
            }
        }
        var link = try WorkerLink(
            configuration, context: context, signal: signal, observer: observer)
        observer.linkBound()
        try link.loop()
        return try link.session.loads + link.serveRepeats()
    }

    private init(
        _ configuration: Configuration, context: ZeroMQContext, signal: LinkSignal,
        observer: any WorkerLinkObserver
    ) throws(WorkerError) {
        let descriptors = try Lane.reserve(configuration.endpoints.count)
        var lanes: [Lane] = []
        for place in configuration.endpoints.indices {
            lanes.append(try Lane(configuration, place, context: context))
        }
        descriptors.reduce(to: lanes.count)
        self.descriptors = [descriptors]
        self.configuration = configuration
        self.context = context
        self.signal = signal
        self.observer = observer
        self.lanes = lanes
        self.nextLanes = lanes.map { _ in nil }
        self.places = Array(lanes.indices)
        self.delimiter = try ZeroMQFrame([], table: context.table)
        self.writer = configuration.writer(for: places)
        self.session = configuration.session(for: places, schedule: configuration.schedule)
    }

    /// Opens the lane of the next session of the worker at `place`.
    mutating func nextLane(_ place: Int) throws(WorkerError) -> Lane {
        let reserved = try Lane.reserve(1)
        let lane = try Lane(
            configuration, place, session: lanes[place].session + 1, context: context)
        reserved.reduce(to: 1)
        descriptors.append(reserved)
        return lane
    }

    static func milliseconds(_ duration: Duration) -> Int {
        microseconds(duration) / 1000
    }

    /// Never negative; durations here are at most a day.
    static func microseconds(_ duration: Duration) -> Int {
        let (seconds, attoseconds) = duration.components
        return max(0, Int(seconds) * 1_000_000 + Int(attoseconds / 1_000_000_000_000))
    }
}

// MARK: - The loop

extension WorkerLink {
    /// Runs the session to its end.
    mutating func loop() throws(WorkerError) {
        let sockets = sockets
        var poller = ZeroMQPoller(
            sockets + monitors, descriptor: signal.readDescriptor, table: context.table)
        while !session.isOver {
            try poller.wait(milliseconds: waitMilliseconds())
            for worker in sockets.indices {
                try receiveEvents(of: worker)
                try receiveMessages(of: worker)
            }
            try receiveSignals()
            try checkDeadlines()
            observer.linkProgressed(
                session.progress, touchesWeights: session.hasTouchedWeights,
                doneCount: session.doneCount)
            if let stage = session.waitsAt { observer.linkWaits(at: stage) }
        }
        if let failure = session.failure { throw failure }
    }

    private func waitMilliseconds() -> Int {
        let now = ContinuousClock.now
        // After a failure only the grace time counts: the deadline may have passed already.
        let next =
            abortDeadline ?? answers.values.reduce(configuration.deadline) { min($0, $1) }
        return min(Self.milliseconds(now.duration(to: next)) + 1, Self.pollMillisecondsMax)
    }

    private mutating func receiveSignals() throws(WorkerError) {
        for event in signal.take() {
            switch event {
            case .fail(let error): try perform(session.fail(error))
            case .permit(let stage): try perform(session.permit(stage, at: .now))
            case .available(let count): try perform(session.available(count))
            case .engineAnswered(let engine):
                answers[engine] = ContinuousClock.now + configuration.answerGrace
            }
        }
    }

    private mutating func checkDeadlines() throws(WorkerError) {
        let now = ContinuousClock.now
        if session.failure != nil {
            let end = abortDeadline ?? now + configuration.abortGrace
            abortDeadline = end
            if now >= end, let failure = session.failure { throw failure }
            return
        }
        if now >= configuration.deadline {
            try perform(session.fail(deadlineError()))
        }
        try checkStragglers(now)
        try checkHandshake(now)
        for (engine, end) in answers where now >= end {
            let waiting = unfinished { $0.engine == engine }
            if waiting.isEmpty {
                // Asked again later; a time that has passed would keep the loop from waiting.
                answers[engine] = now + configuration.answerGrace
                continue
            }
            try perform(
                session.fail(
                    WorkerError(
                        .workerLost,
                        "\(engine) answered that the update is done, but "
                            + "\(waiting.joined(separator: ", ")) has not committed; check that its "
                            + "worker extension is checkpoint_engine.worker.VllmColocateWorkerExtension"
                    )))
        }
    }

    private mutating func checkStragglers(_ now: ContinuousClock.Instant) throws(WorkerError) {
        let incomplete = session.incompleteEngines
        firstComers = firstComers.filter { incomplete.contains($0.key) }
        for engine in incomplete {
            let first = firstComers[engine] ?? now
            firstComers[engine] = first
            if first.duration(to: now) < configuration.stragglerGrace { continue }
            let waiting = unfinished { $0.engine == engine }
            try perform(
                session.fail(
                    WorkerError(
                        .workerLost,
                        "not all workers of \(engine) came within "
                            + "\(configuration.stragglerGrace.components.seconds) s of the first: "
                            + waiting.joined(separator: ", "))))
        }
    }

    /// An engine whose worker has died, or that hangs, may never answer its call.
    private mutating func checkHandshake(_ now: ContinuousClock.Instant) throws(WorkerError) {
        guard let grace = configuration.handshakeGrace, session.failure == nil,
            session.progress.stage == .handshake,
            let start = session.progress.stageStarts.first?.at, start.duration(to: now) >= grace
        else { return }
        let waiting = unfinished { _ in true }.joined(separator: ", ")
        try perform(
            session.fail(
                WorkerError(
                    .workerLost,
                    "\(waiting) did not come within \(grace.components.seconds) s of the call to the "
                        + "engine: it has died or hangs, or is busy with requests that the update could "
                        + "pause; its engine's log tells")))
    }

    private func unfinished(where condition: (WorkerEndpoint) -> Bool) -> [String] {
        session.endpoints.indices.filter { worker in
            let report = session.progress.workers[worker]
            let isBehind =
                session.progress.stage == .handshake ? report.hello == nil : !report.isCommitted
            return condition(session.endpoints[worker]) && isBehind
        }.map { session.name(of: $0) }
    }

    private func deadlineError() -> WorkerError {
        WorkerError(
            .deadlineExceeded,
            "the deadline passed during the \(session.progress.stage) stage; still waiting for "
                + session.awaited.joined(separator: ", "))
    }
}

// MARK: - One worker

extension WorkerLink {
    /// Reads what the monitor says about connections.
    private mutating func receiveEvents(of worker: Int) throws(WorkerError) {
        while let event = try monitors[worker].receiveEvent() {
            if event == Int(CE_ZMQ_EVENT_HANDSHAKE_SUCCEEDED) {
                try sockets[worker].noteConnections()
                try perform(session.connected(worker))
                try prepareNext(worker)
            } else if event == Int(CE_ZMQ_EVENT_DISCONNECTED) {
                // What the worker sent before it went has arrived by now, and counts.
                while try receiveMessage(of: worker) {}
                try perform(session.disconnected(worker))
            }
        }
    }

    private mutating func receiveMessages(of worker: Int) throws(WorkerError) {
        for _ in 0..<Self.burst {
            guard try receiveMessage(of: worker) else { return }
        }
    }

    private mutating func receiveMessage(of worker: Int) throws(WorkerError) -> Bool {
        let name = session.name(of: worker)
        guard let frames = try sockets[worker].receive(from: name) else { return false }
        let actions: [UpdateSession.Action]
        do throws(WorkerError) {
            guard frames.count >= 2, frames[0].isEmpty else {
                throw WorkerError(.protocolViolation, "it has no delimiter")
            }
            actions = try answered(Array(frames.dropFirst()), by: worker)
        } catch {
            actions = session.malformed(worker, error.message)
        }
        try perform(actions)
        return true
    }

    /// The first answer tells the protocol: ours is JSON, the known one nothing or a text.
    private mutating func answered(_ frames: [[UInt8]], by worker: Int) throws(WorkerError)
        -> [UpdateSession.Action]
    {
        let isText = frames.count == 1 && frames[0].first != UInt8(ascii: "{")
        if session.isKnown(worker)
            || (configuration.memory.kind == .cuda && session.isUndecided(worker) && isText)
        {
            let text = String(decoding: frames[0], as: UTF8.self)
            if text.isEmpty, session.isUndecided(worker) {
                return session.greetedKnown(worker, at: .now)
            }
            return session.receivedKnown(text, from: worker, at: .now)
        }
        return session.received(try WorkerMessage(frames: frames), from: worker, at: .now)
    }

    mutating func perform(_ actions: [UpdateSession.Action]) throws(WorkerError) {
        for action in actions {
            switch action {
            case .send(let worker, .hello(let hello)):
                try send(frames(of: writer.hello(hello, to: worker)), to: worker)
            case .send(let worker, let message) where session.isKnown(worker):
                try send(frames(of: [writer.known(message)]), to: worker)
            case .send(let worker, let message):
                try send(frames(of: message.frames()), to: worker)
            case .sendCatalog(let worker):
                try send(writer.catalog(to: worker, table: context.table), to: worker)
            }
        }
        if session.progress.stage > .catalog { writer.dropCatalog() }
    }

    /// A worker that has just gone cannot be sent to; its disconnect, which is read next, decides what
    /// that means, since it may have committed with its last words.
    private func send(_ frames: [ZeroMQFrame], to worker: Int) throws(WorkerError) {
        _ = try sockets[worker].send([delimiter] + frames, to: session.name(of: worker))
    }

    private func frames(of bytes: [[UInt8]]) throws(WorkerError) -> [ZeroMQFrame] {
        try bytes.map { bytes throws(WorkerError) in
            try ZeroMQFrame(bytes, table: context.table)
        }
    }
}
