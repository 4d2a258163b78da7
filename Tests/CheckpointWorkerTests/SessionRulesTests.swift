import CheckpointModel
import CheckpointTesting
import Testing

@testable import CheckpointWorker

/// The rules of the protocol under random orders of events.
struct SessionRulesTests {
    @Test(arguments: 0..<300 as Range<UInt64>)
    func honestWorkersAlwaysCommit(_ seed: UInt64) {
        var update = SimulatedUpdate(seed: seed)
        update.run(nil)
        #expect(update.session.isCommitted && update.session.isOver, "seed \(seed)")
        #expect(update.session.failure == nil, "seed \(seed)")
        for report in update.session.progress.workers {
            #expect(report.loadedByteCount == update.byteCount, "seed \(seed)")
        }
        #expect(update.session.progress.stageStarts.map(\.stage) == SessionStage.allCases)
        #expect(update.session.awaited.isEmpty)
    }

    @Test(arguments: SimulatedUpdate.Fault.allCases, 0..<100 as Range<UInt64>)
    func aFaultEndsTheUpdateForEverybody(_ fault: SimulatedUpdate.Fault, _ seed: UInt64) {
        var update = SimulatedUpdate(seed: seed)
        update.run(fault)
        #expect(update.session.isOver, "seed \(seed)")
        #expect(update.session.isCommitted == !update.hasFault, "seed \(seed)")
        #expect((update.session.failure != nil) == update.hasFault, "seed \(seed)")
        if update.hasFault { #expect(update.everybodyKnowsOfTheFailure, "seed \(seed)") }
    }

    /// The simulation reaches every kind of fault, so that the test above tests something.
    @Test(arguments: SimulatedUpdate.Fault.allCases)
    func everyFaultHappens(_ fault: SimulatedUpdate.Fault) {
        let count = (0..<100 as Range<UInt64>).count { seed in
            var update = SimulatedUpdate(seed: seed)
            update.run(fault)
            return update.hasFault
        }
        #expect(count >= 10, "\(fault) happened \(count) times")
    }
}

/// What a failure looks like at each stage, word by word where people read it.
struct SessionFailureTests {
    private static let now = ContinuousClock.now

    /// A session of two workers that has just entered `stage`.
    private static func session(in stage: SessionStage) -> UpdateSession {
        var session = UpdateSession(
            endpoints: (0..<2).map { rank in
                WorkerEndpoint(id: .cpu(rank: rank), engine: "http://e", socketPath: "/tmp/\(rank)")
            },
            schedule: DeliverySchedule(buckets: [.init(first: 0, count: 1, byteCount: 8)]),
            hello: ServerHello(update: "u", checkpoint: "c", deadlineMilliseconds: 1), now: now)
        for worker in 0..<2 { _ = session.connected(worker) }
        let answers: [(Int) -> WorkerMessage] = [
            {
                .hello(
                    WorkerHello(
                        version: 1, worker: "CPU-\($0)", pid: 40 + $0, software: "", credits: 1))
            }, { _ in .ready }, { _ in .loaded(index: 0, byteCount: 8, microseconds: 1) },
            { _ in .released },
        ]
        for answer in answers where session.progress.stage < stage {
            for worker in 0..<2 { _ = session.received(answer(worker), from: worker, at: now) }
        }
        return session
    }

    private static let places: [(SessionStage, String)] = [
        (.handshake, "the handshake"), (.catalog, "the exchange of the catalog"),
        (.reload, "bucket 0 of 1"), (.release, "the release"), (.commit, "the commit"),
    ]

    @Test(arguments: places)
    func aDisconnectNamesThePlace(_ stage: SessionStage, _ place: String) {
        var session = Self.session(in: stage)
        #expect(session.progress.stage == stage)
        let actions = session.disconnected(1)
        #expect(session.failure?.code == .workerLost)
        let who = stage == .handshake ? "(silent)" : "(pid 41)"
        #expect(
            session.failure?.message
                == "worker CPU-1 \(who) of http://e disconnected during \(place)")
        #expect(actions == [.send(worker: 0, .abort(reason: session.failure?.message ?? ""))])
        #expect(!session.isOver)
        // The other one answers what it was asked before, then the abort.
        _ = session.received(.ready, from: 0, at: Self.now)
        #expect(!session.isOver)
        _ = session.received(.aborted, from: 0, at: Self.now)
        #expect(session.isOver && !session.isCommitted)
    }

    @Test(arguments: places)
    func anErrorOfAWorkerIsPassedOn(_ stage: SessionStage, _ place: String) {
        var session = Self.session(in: stage)
        let reported = WorkerFailure(stage: .commit, message: "boom", traceback: "")
        let actions = session.received(.error(reported), from: 0, at: Self.now)
        #expect(session.failure?.code == .workerFailed)
        #expect(session.failure?.message.hasSuffix("failed in commit: boom") == true)
        #expect(session.failure?.cause == nil)
        #expect(actions.count == 2)
        #expect(session.hasTouchedWeights == (stage >= .reload))
    }

    @Test func aWorkerThatComesAfterTheFailureIsToldToAbort() {
        var session = UpdateSession(
            endpoints: [WorkerEndpoint(id: .cpu(rank: 0), engine: "e", socketPath: "/tmp/0")],
            schedule: DeliverySchedule(buckets: []),
            hello: ServerHello(update: "u", checkpoint: "c", deadlineMilliseconds: 1),
            now: Self.now)
        #expect(session.fail(WorkerError(.cancelled, "stop")).isEmpty)
        #expect(session.isOver)
        #expect(session.connected(0) == [.send(worker: 0, .abort(reason: "stop"))])
        #expect(!session.isOver)
        _ = session.disconnected(0)
        #expect(session.isOver)
        #expect(session.failure?.message == "stop")
    }

    @Test func aVersionThatWasNotOfferedIsRefused() {
        var session = Self.session(in: .handshake)
        let hello = WorkerHello(
            version: 2, worker: "CPU-0", pid: 1, software: "", credits: 1)
        _ = session.received(.hello(hello), from: 0, at: Self.now)
        #expect(session.failure?.code == .protocolViolation)
        #expect(session.failure?.message.contains("version 2 was not offered") == true)
    }

    /// What a worker tells of its time is at most the time that there was.
    @Test func timesThatCannotBeAreCut() throws {
        var session = Self.session(in: .reload)
        let now = Self.now + .milliseconds(5)
        let claimed = WorkerMessage.loaded(
            index: 0, byteCount: session.schedule.buckets[0].byteCount,
            microseconds: MessageFrames.microseconds.upperBound)
        _ = session.received(claimed, from: 0, at: now)
        let load = try #require(session.loads.first)
        #expect(load.end == now && load.duration <= .milliseconds(5))
        #expect(session.progress.workers[0].loadDuration == load.duration)
        #expect(session.failure == nil)
    }

    @Test func nothingFailsAnUpdateThatHasCommitted() {
        var session = Self.session(in: .commit)
        for worker in 0..<2 {
            _ = session.received(.committed(microseconds: 7), from: worker, at: Self.now)
        }
        #expect(session.fail(WorkerError(.deadlineExceeded, "too late")).isEmpty)
        #expect(session.disconnected(0).isEmpty)
        #expect(session.failure == nil && session.isCommitted)
        #expect(
            session.progress.workers.map(\.commitDuration) == [.microseconds(7), .microseconds(7)])
    }

    @Test func incompleteEnginesAreThoseWithSomeWorkers() {
        var session = UpdateSession(
            endpoints: [("a", 0), ("a", 1), ("b", 0)].map { engine, rank in
                WorkerEndpoint(
                    id: .cpu(rank: rank), engine: engine, socketPath: "/tmp/\(engine)\(rank)")
            }, schedule: DeliverySchedule(buckets: []),
            hello: ServerHello(update: "u", checkpoint: "c", deadlineMilliseconds: 1),
            now: Self.now)
        #expect(session.incompleteEngines.isEmpty)
        _ = session.connected(0)
        let hello = WorkerHello(version: 1, worker: "CPU-0", pid: 1, software: "", credits: 1)
        _ = session.received(.hello(hello), from: 0, at: Self.now)
        #expect(session.incompleteEngines == ["a"])
        #expect(session.awaited.count == 2)
        _ = session.connected(1)
        #expect(session.incompleteEngines.isEmpty)
    }
}
