import CNative
public import CheckpointModel
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
        /// Tells when workers of the known protocol have let go of their memory.
        public let counters: ReferenceCounterFile?
        /// What ``CatalogMessage/body(_:)`` gives for the tensors, where it was made already.
        public let catalogBody: [UInt8]?

        public init(
            update: String, checkpoint: String, endpoints: [WorkerEndpoint],
            memory: WorkerMemory, tensors: [TensorEntry], schedule: DeliverySchedule,
            deadline: ContinuousClock.Instant, abortGrace: Duration = .seconds(5),
            answerGrace: Duration = .seconds(5), stragglerGrace: Duration = .seconds(30),
            counters: ReferenceCounterFile? = nil, catalogBody: [UInt8]? = nil
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
        }
    }

    /// Frames larger than the protocol allows end the connection.
    private static let frameByteCountMax: Int64 = 1 << 20
    private static let lingerMilliseconds: CInt = 1000
    private static let pollMillisecondsMax = 1000
    /// Messages that are taken from one worker before the next one gets its turn.
    private static let burst = 64

    private let configuration: Configuration
    private let context: ZeroMQContext
    private let signal: LinkSignal
    private let observer: any WorkerLinkObserver
    private let sockets: [ZeroMQSocket]
    private let monitors: [ZeroMQSocket]
    private let delimiter: ZeroMQFrame
    private var writer: ServerFrames
    private var session: UpdateSession
    private var abortDeadline: ContinuousClock.Instant?
    private var answers: [String: ContinuousClock.Instant] = [:]
    /// When the first worker of an engine had come, for engines that are not complete yet.
    private var firstComers: [String: ContinuousClock.Instant] = [:]

    /// Binds every endpoint's socket and then runs the session; `observer` follows it. Returns the loads
    /// of all buckets; throws the first failure.
    @discardableResult
    public static func run(
        _ configuration: Configuration, context: ZeroMQContext, signal: LinkSignal,
        observer: any WorkerLinkObserver
    ) throws(WorkerError) -> [BucketLoad] {
        var link = try WorkerLink(
            configuration, context: context, signal: signal, observer: observer)
        observer.linkBound()
        try link.loop()
        return link.session.loads
    }

    private init(
        _ configuration: Configuration, context: ZeroMQContext, signal: LinkSignal,
        observer: any WorkerLinkObserver
    ) throws(WorkerError) {
        let now = ContinuousClock.now
        var sockets: [ZeroMQSocket] = []
        var monitors: [ZeroMQSocket] = []
        for (index, endpoint) in configuration.endpoints.enumerated() {
            let socket = try ZeroMQSocket(
                .dealer, context: context, lingerMilliseconds: Self.lingerMilliseconds)
            try socket.setOption(CInt(CE_ZMQ_MAXMSGSIZE), Self.frameByteCountMax)
            monitors.append(
                try socket.monitor(
                    "inproc://monitor-\(configuration.update)-\(index)",
                    events: CInt(
                        CE_ZMQ_EVENT_DISCONNECTED
                            | CE_ZMQ_EVENT_HANDSHAKE_SUCCEEDED)))
            try socket.bind(endpoint.address)
            sockets.append(socket)
        }
        self.configuration = configuration
        self.context = context
        self.signal = signal
        self.observer = observer
        self.sockets = sockets
        self.monitors = monitors
        self.delimiter = try ZeroMQFrame([], table: context.table)
        self.writer = ServerFrames(
            memory: configuration.memory, schedule: configuration.schedule,
            tensors: configuration.tensors, counters: configuration.counters,
            knownBody: configuration.catalogBody)
        self.session = UpdateSession(
            endpoints: configuration.endpoints, schedule: configuration.schedule,
            hello: ServerHello(
                update: configuration.update, checkpoint: configuration.checkpoint,
                memory: configuration.memory.kind,
                deadlineMilliseconds: Self.milliseconds(now.duration(to: configuration.deadline))),
            now: now)
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
    private mutating func loop() throws(WorkerError) {
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

    private func unfinished(where condition: (WorkerEndpoint) -> Bool) -> [String] {
        configuration.endpoints.indices.filter { worker in
            let report = session.progress.workers[worker]
            let isBehind =
                session.progress.stage == .handshake ? report.hello == nil : !report.isCommitted
            return condition(configuration.endpoints[worker]) && isBehind
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
                try perform(session.connected(worker))
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

    private mutating func perform(_ actions: [UpdateSession.Action]) throws(WorkerError) {
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
