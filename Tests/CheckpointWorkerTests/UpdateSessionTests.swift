import CheckpointModel
import CheckpointTesting
import Testing

@testable import CheckpointWorker

/// The protocol as a pure state machine: no sockets, no clocks but the one that is passed in.
struct UpdateSessionTests {
    private static let now = ContinuousClock.now
    private static let buckets = [3, 5, 7].enumerated().map { index, byteCount in
        DeliverySchedule.Bucket(first: index, count: 1, byteCount: byteCount)
    }

    private static func session(workers: Int = 2, buckets: [DeliverySchedule.Bucket] = buckets)
        -> UpdateSession
    {
        UpdateSession(
            endpoints: (0..<workers).map { rank in
                WorkerEndpoint(
                    id: .cpu(rank: rank), engine: "http://engine", socketPath: "/tmp/w\(rank)")
            }, schedule: DeliverySchedule(buckets: buckets),
            hello: ServerHello(update: "u", checkpoint: "c", deadlineMilliseconds: 1000), now: now)
    }

    private static func hello(_ rank: Int, credits: Int = 2) -> WorkerMessage {
        .hello(
            WorkerHello(
                version: 1, worker: "CPU-\(rank)", pid: 40 + rank, software: "", credits: credits))
    }

    private static func loaded(_ index: Int) -> WorkerMessage {
        .loaded(index: index, byteCount: buckets[index].byteCount, microseconds: 1)
    }

    /// A session whose workers have all said hello and mapped the catalog.
    private static func started(workers: Int = 2, credits: Int = 2) -> (
        UpdateSession, [UpdateSession.Action]
    ) {
        var session = session(workers: workers)
        for worker in 0..<workers {
            _ = session.connected(worker)
            _ = session.received(hello(worker, credits: credits), from: worker, at: now)
        }
        var actions: [UpdateSession.Action] = []
        for worker in 0..<workers { actions += session.received(.ready, from: worker, at: now) }
        return (session, actions)
    }

    @Test func goesThroughAllStagesInOrder() {
        var session = Self.session()
        #expect(session.connected(0).count == 1)
        #expect(session.received(Self.hello(0), from: 0, at: Self.now).isEmpty)
        #expect(session.connected(1).count == 1)
        #expect(
            session.received(Self.hello(1), from: 1, at: Self.now)
                == [.sendCatalog(worker: 0), .sendCatalog(worker: 1)])
        #expect(session.received(.ready, from: 1, at: Self.now).isEmpty)
        #expect(session.received(.ready, from: 0, at: Self.now).count == 4)
        #expect(session.hasTouchedWeights)
        for worker in 0..<2 {
            #expect(session.received(Self.loaded(0), from: worker, at: Self.now).count == 1)
            #expect(session.received(Self.loaded(1), from: worker, at: Self.now).isEmpty)
            let actions = session.received(Self.loaded(2), from: worker, at: Self.now)
            #expect(actions.count == (worker == 0 ? 0 : 2))
        }
        #expect(session.progress.stage == .release)
        #expect(session.received(.released, from: 0, at: Self.now).isEmpty)
        #expect(
            session.received(.released, from: 1, at: Self.now)
                == [.send(worker: 0, .commit), .send(worker: 1, .commit)])
        _ = session.received(.committed(microseconds: 5), from: 0, at: Self.now)
        #expect(!session.isOver)
        _ = session.received(.committed(microseconds: 5), from: 1, at: Self.now)
        #expect(session.isOver && session.isCommitted && session.failure == nil)
        #expect(session.progress.stageStarts.map(\.stage) == SessionStage.allCases)
        #expect(session.progress.workers.allSatisfy { $0.loadedByteCount == 15 })
    }

    @Test(arguments: 1...4)
    func sendsNoMoreThanTheCreditsAllow(_ credits: Int) {
        let (_, actions) = Self.started(workers: 1, credits: credits)
        #expect(actions.count == min(credits, 3))
    }

    @Test func anEmptyCatalogIsCommittedToo() {
        var session = Self.session(workers: 1, buckets: [])
        _ = session.connected(0)
        _ = session.received(Self.hello(0), from: 0, at: Self.now)
        #expect(session.received(.ready, from: 0, at: Self.now) == [.send(worker: 0, .release)])
    }

    @Test func aFailureIsTheFirstOneAndAbortsTheOthers() {
        var (session, _) = Self.started()
        let reported = WorkerFailure(stage: .bucket, message: "boom", traceback: "line 1")
        let actions = session.received(.error(reported), from: 1, at: Self.now)
        #expect(session.failure?.code == .workerFailed)
        #expect(session.failure?.message.contains("CPU-1 (pid 41)") == true)
        #expect(session.failure?.message.contains("boom") == true)
        #expect(session.failure?.cause == "line 1")
        #expect(actions.count == 2)
        _ = session.fail(WorkerError(.cancelled, "later"))
        #expect(session.failure?.code == .workerFailed)
        #expect(!session.isOver)
        // Worker 0 owes two buckets and the abort; worker 1 owes its second bucket and the abort.
        for message in [Self.loaded(0), Self.loaded(1), .aborted] {
            _ = session.received(message, from: 0, at: Self.now)
        }
        for message in [Self.loaded(1), .aborted] {
            _ = session.received(message, from: 1, at: Self.now)
        }
        #expect(session.isOver && !session.isCommitted)
    }

    @Test func aDisconnectNamesTheWorkerAndItsPlace() {
        var (session, _) = Self.started()
        _ = session.received(Self.loaded(0), from: 0, at: Self.now)
        let actions = session.disconnected(0)
        #expect(session.failure?.code == .workerLost)
        #expect(session.failure?.message.contains("bucket 1 of 3") == true)
        #expect(actions.count == 1)
        #expect(session.disconnected(0).isEmpty)
        _ = session.disconnected(1)
        #expect(session.isOver)
    }

    @Test func aDisconnectAfterTheCommitIsNoFailure() {
        var (session, _) = Self.started(workers: 1)
        for index in 0..<3 { _ = session.received(Self.loaded(index), from: 0, at: Self.now) }
        _ = session.received(.released, from: 0, at: Self.now)
        _ = session.received(.committed(microseconds: 1), from: 0, at: Self.now)
        _ = session.disconnected(0)
        #expect(session.isCommitted && session.failure == nil)
    }

    @Test(arguments: [
        WorkerMessage.ready, .released, .committed(microseconds: 0), .aborted,
        .loaded(index: 1, byteCount: 5, microseconds: 0),
        .loaded(index: 0, byteCount: 4, microseconds: 0),
    ])
    func anAnswerToAnotherMessageIsAViolation(_ message: WorkerMessage) {
        var (session, _) = Self.started(workers: 1)
        _ = session.received(message, from: 0, at: Self.now)
        #expect(session.failure?.code == .protocolViolation)
    }

    @Test func aSecondWorkerOnOneAddressIsAViolation() {
        var session = Self.session(workers: 1)
        _ = session.connected(0)
        _ = session.connected(0)
        #expect(session.failure?.code == .protocolViolation)
        #expect(session.failure?.message.contains("second worker") == true)
    }

    @Test func aWorkerOfAnotherNameIsAViolation() {
        var session = Self.session()
        _ = session.connected(0)
        _ = session.received(Self.hello(1), from: 0, at: Self.now)
        #expect(session.failure?.code == .protocolViolation)
    }

    /// Random events in random order: nothing is sent to a worker that is gone or was not there, at most
    /// `credits` buckets are open, and the session ends once everybody has gone.
    @Test(arguments: 0..<300 as Range<UInt64>)
    func randomEventsKeepTheInvariants(_ seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        var session = Self.session(workers: 3)
        var connected: Set<Int> = []
        var gone: Set<Int> = []
        for _ in 0..<60 {
            let worker = Int.random(in: 0..<3, using: &generator)
            let actions: [UpdateSession.Action]
            switch Int.random(in: 0..<12, using: &generator) {
            case 0 where !connected.contains(worker):
                connected.insert(worker)
                actions = session.connected(worker)
            case 1:
                actions = session.disconnected(worker)
                if connected.contains(worker) { gone.insert(worker) }
            case 2: actions = session.fail(WorkerError(.cancelled, "random"))
            case 3: actions = session.malformed(worker, "random")
            default:
                guard connected.contains(worker), !gone.contains(worker) else { continue }
                let messages: [WorkerMessage] = [
                    Self.hello(worker), .ready, Self.loaded(0), Self.loaded(1), Self.loaded(2),
                    .released, .committed(microseconds: 0), .aborted,
                    .error(WorkerFailure(stage: .bucket, message: "", traceback: "")),
                ]
                guard let message = messages.randomElement(using: &generator) else { continue }
                actions = session.received(message, from: worker, at: Self.now)
            }
            for action in actions {
                switch action {
                case .send(let target, _), .sendCatalog(let target):
                    #expect(connected.contains(target) && !gone.contains(target), "seed \(seed)")
                }
            }
        }
        for worker in connected { _ = session.disconnected(worker) }
        _ = session.fail(WorkerError(.deadlineExceeded, "the end"))
        #expect(session.isOver, "seed \(seed)")
    }
}
