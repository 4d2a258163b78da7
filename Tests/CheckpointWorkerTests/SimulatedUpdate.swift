import CheckpointModel
import CheckpointTesting
import Testing

@testable import CheckpointWorker

/// One update with honest workers whose answers come in random order, and one fault at a random moment.
/// Every action of the session is checked against the rules of `docs/wire-protocol.md`.
struct SimulatedUpdate {
    enum Fault: CaseIterable, Sendable {
        case error, disconnect, secondConnection, wrongAnswer, wrongByteCount, malformed, outside
    }

    private struct Peer {
        var isConnected = false
        var isGone = false
        /// What the server has sent and this worker has not answered.
        var inbox: [ServerMessage?] = []
        var answered: Set<String> = []
        var loaded = 0
        var nextBucket = 0
        var isAborted = false
        var isCommitted = false
        let credits: Int
    }

    private let seed: UInt64
    private var generator: SeededGenerator
    private let buckets: [DeliverySchedule.Bucket]
    private var peers: [Peer]
    private(set) var session: UpdateSession
    private(set) var hasFault = false
    private let now = ContinuousClock.now

    init(seed: UInt64) {
        self.seed = seed
        var generator = SeededGenerator(seed: seed)
        var first = 0
        buckets = (0..<Int.random(in: 0...6, using: &generator)).map { _ in
            let count = Int.random(in: 1...5, using: &generator)
            defer { first += count }
            return .init(
                first: first, count: count, byteCount: Int.random(in: 0...99, using: &generator))
        }
        let workerCount = Int.random(in: 1...4, using: &generator)
        peers = (0..<workerCount).map { _ in
            Peer(credits: Int.random(in: 1...5, using: &generator))
        }
        session = UpdateSession(
            endpoints: (0..<workerCount).map { rank in
                WorkerEndpoint(
                    id: .cpu(rank: rank), engine: "http://engine-\(rank % 2)",
                    socketPath: "/tmp/worker-\(rank)")
            }, schedule: DeliverySchedule(buckets: buckets),
            hello: ServerHello(update: "u", checkpoint: "c", deadlineMilliseconds: 1000), now: now)
        self.generator = generator
    }

    var byteCount: Int { buckets.reduce(0) { $0 + $1.byteCount } }

    /// Runs until nobody has anything left to say. `fault` happens once, at a random step.
    mutating func run(_ fault: Fault?) {
        let faultStep = Int.random(in: 0..<40, using: &generator)
        // No update here has more than 4 workers × (1 + 11 messages) + 1 steps.
        for step in 0..<100 {
            if step == faultStep, let fault { commit(fault) }
            let ready = peers.indices.filter { !peers[$0].isGone && canMove($0) }
            guard let worker = ready.randomElement(using: &generator) else {
                if fault == nil || hasFault || step > faultStep { return }
                continue
            }
            move(worker)
        }
    }

    private func canMove(_ worker: Int) -> Bool {
        !peers[worker].isConnected || !peers[worker].inbox.isEmpty
    }

    private mutating func move(_ worker: Int) {
        guard peers[worker].isConnected else {
            peers[worker].isConnected = true
            check(session.connected(worker))
            return
        }
        answer(worker, peers[worker].inbox.removeFirst())
    }

    /// The right answer; `nil` stands for the catalog.
    private mutating func answer(_ worker: Int, _ message: ServerMessage?) {
        let answer: WorkerMessage
        switch message {
        case .hello?:
            answer = .hello(hello(worker))
            peers[worker].answered.insert("hello")
        case .catalog?, nil:
            answer = .ready
            peers[worker].answered.insert("catalog")
        case .bucket(let index, _, _)?:
            answer = .loaded(
                index: index, byteCount: buckets[index].byteCount, microseconds: index)
            peers[worker].loaded += 1
        case .release?:
            answer = .released
            peers[worker].answered.insert("release")
        case .commit?:
            answer = .committed(microseconds: 1)
            peers[worker].isCommitted = true
        case .abort?: answer = .aborted
        }
        check(session.received(answer, from: worker, at: now))
    }

    private func hello(_ worker: Int) -> WorkerHello {
        WorkerHello(
            version: 1, worker: "CPU-\(worker)", pid: 100 + worker, software: "s",
            credits: peers[worker].credits)
    }
}

// MARK: - Faults

extension SimulatedUpdate {
    /// Commits `fault`, on a random worker for which it is possible now.
    private mutating func commit(_ fault: Fault) {
        guard !session.isOver else { return }
        let worker = peers.indices.randomElement(using: &generator) ?? 0
        let peer = peers[worker]
        guard fault == .outside || peer.isConnected && !peer.isCommitted else { return }
        hasFault = true
        switch fault {
        case .error:
            guard !peer.inbox.isEmpty else { return hasFault = false }
            peers[worker].inbox.removeFirst()
            check(
                session.received(
                    .error(WorkerFailure(stage: .bucket, message: "boom", traceback: "")),
                    from: worker, at: now))
        case .disconnect:
            peers[worker].isGone = true
            check(session.disconnected(worker))
        case .secondConnection: check(session.connected(worker))
        case .wrongAnswer:
            if !peer.inbox.isEmpty { peers[worker].inbox.removeFirst() }
            check(session.received(.aborted, from: worker, at: now))
        case .wrongByteCount:
            guard case .bucket(let index, _, _)?? = peer.inbox.first else {
                return hasFault = false
            }
            peers[worker].inbox.removeFirst()
            check(
                session.received(
                    .loaded(
                        index: index, byteCount: buckets[index].byteCount + 1, microseconds: 0),
                    from: worker, at: now))
        case .malformed: check(session.malformed(worker, "it is no JSON"))
        case .outside: check(session.fail(WorkerError(.cancelled, "the user")))
        }
        #expect(session.failure != nil, "seed \(seed), \(fault)")
    }
}

// MARK: - The rules

extension SimulatedUpdate {
    /// Checks what the session does now, and delivers it.
    private mutating func check(_ actions: [UpdateSession.Action]) {
        for action in actions {
            switch action {
            case .sendCatalog(let worker): deliver(nil, to: worker)
            case .send(let worker, let message): deliver(message, to: worker)
            }
        }
        let late = session.failure != nil && session.isCommitted
        #expect(!late, "seed \(seed): an update that has committed cannot fail")
    }

    private mutating func deliver(_ message: ServerMessage?, to worker: Int) {
        let peer = peers[worker]
        #expect(peer.isConnected && !peer.isGone, "seed \(seed): sent to nobody")
        #expect(!peer.isCommitted, "seed \(seed): sent after the commit")
        #expect(!peer.isAborted, "seed \(seed): sent after the abort")
        let isAbort = if case .abort? = message { true } else { false }
        #expect((session.failure != nil) == isAbort, "seed \(seed): \(String(describing: message))")
        switch message {
        case .hello?: #expect(peer.inbox.isEmpty && peer.answered.isEmpty, "seed \(seed)")
        case .catalog?, nil: #expect(all { $0.answered.contains("hello") }, "seed \(seed)")
        case .bucket(let index, let first, let count)?:
            #expect(all { $0.answered.contains("catalog") }, "seed \(seed)")
            #expect(index == peer.nextBucket, "seed \(seed)")
            #expect(first == buckets[index].first && count == buckets[index].count)
            #expect(peer.inbox.count < peer.credits, "seed \(seed): more than the credits allow")
            peers[worker].nextBucket += 1
        case .release?: #expect(all { $0.loaded == buckets.count }, "seed \(seed)")
        case .commit?: #expect(all { $0.answered.contains("release") }, "seed \(seed)")
        case .abort?: peers[worker].isAborted = true
        }
        peers[worker].inbox.append(message)
    }

    private func all(_ condition: (Peer) -> Bool) -> Bool { peers.allSatisfy(condition) }

    /// Whether everybody who is still there has been told to abort.
    var everybodyKnowsOfTheFailure: Bool {
        all { !$0.isConnected || $0.isGone || $0.isCommitted || $0.isAborted }
    }
}
