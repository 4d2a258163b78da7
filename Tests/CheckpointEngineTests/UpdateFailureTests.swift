import CheckpointEngine
import CheckpointModel
import CheckpointTesting
import Synchronization
import Testing

/// Updates that fail: the caller learns why within a bound, and the next update works.
struct UpdateFailureTests {
    /// Registers a checkpoint, runs one update that fails, checks it, and then runs one that works:
    /// `breaks` is asked about each reload, and told how many came before.
    private func afterAFailure(
        workers: Int = 1, breaks: @escaping @Sendable () -> ScriptedHTTPServer.Reply,
        check: (UpdateStatus, InProcessEngine) -> Void
    ) async throws {
        let reloads = Atomic(0)
        try await UpdateFixture.with(engines: { fixture in
            [
                try InProcessEngine("one", in: fixture.disk, workers: workers) { request in
                    guard request.target == "/collective_rpc",
                        reloads.add(1, ordering: .relaxed).oldValue == 0
                    else { return nil }
                    return breaks()
                }
            ]
        }) { fixture, engines in
            let source = try TemporaryDirectory()
            let catalog = try fixture.write(layout: 1, data: 2, to: source)
            try await fixture.engine.register(fixture.name, paths: [source.path])
            let failed = try await fixture.update(fixture.request(engines, timeoutSeconds: 30))
            #expect(failed.state == .failed)
            #expect(failed.seconds < 20, "\(failed.seconds)")
            check(failed, engines[0])
            let status = try await fixture.update(fixture.request(engines))
            #expect(status.state == .succeeded, "\(status)")
            let expected = try fixture.expected(catalog, in: source, rank: 0, of: workers)
            #expect(try engines[0].memory(rank: 0) == expected)
            #expect(await fixture.engine.statistics().updatesSucceeded == 1)
        }
    }

    @Test func anEngineThatRefuses() async throws {
        try await afterAFailure(breaks: { .answer(status: 500, body: "no such method") }) {
            failed, _ in
            #expect(failed.error?.code == EngineError.Code.engineFailed.rawValue)
            #expect(failed.error?.cause == "no such method")
            // No worker has loaded anything.
            #expect(failed.error?.message.contains("mixture") == false)
            #expect(failed.stage == .handshake)
        }
    }

    @Test func anEngineThatDies() async throws {
        try await afterAFailure(breaks: { .close }) { failed, _ in
            #expect(failed.error?.code == EngineError.Code.engineFailed.rawValue)
            #expect(failed.error?.message.contains("closed the connection") == true)
        }
    }

    @Test func anEngineWhoseWorkersDoNotKnowTheCall() async throws {
        try await afterAFailure(breaks: { .answer(status: 200, body: "{}") }) { failed, _ in
            #expect(failed.error?.code == EngineError.Code.workerLost.rawValue)
            #expect(failed.error?.message.contains("worker extension") == true)
        }
    }

    @Test func oneEngineOfTwoFailsAndTheOtherIsTold() async throws {
        try await UpdateFixture.with(engines: { fixture in
            [
                try InProcessEngine("good", in: fixture.disk, workers: 1),
                try InProcessEngine("bad", in: fixture.disk, workers: 1) { request in
                    request.target == "/collective_rpc" ? .answer(status: 500, body: "bad") : nil
                },
            ]
        }) { fixture, engines in
            let source = try TemporaryDirectory()
            _ = try fixture.write(layout: 1, data: 2, to: source)
            try await fixture.engine.register(fixture.name, paths: [source.path])
            let both = try await fixture.update(fixture.request(engines))
            #expect(both.error?.code == EngineError.Code.engineFailed.rawValue)
            #expect(both.error?.message.contains("bad.sock") == true)
            #expect(both.workers.allSatisfy { !$0.committed })
            let good = try await fixture.update(fixture.request([engines[0]]))
            #expect(good.state == .succeeded, "\(good)")
        }
    }

    @Test func aRunningUpdateHoldsItsCheckpointUntilItIsCancelled() async throws {
        try await UpdateFixture.with(engines: { fixture in
            [
                try InProcessEngine("one", in: fixture.disk, workers: 1) { request in
                    request.target == "/collective_rpc" ? .hang : nil
                }
            ]
        }) { fixture, engines in
            let source = try TemporaryDirectory()
            _ = try fixture.write(layout: 1, data: 2, to: source)
            let engine = fixture.engine
            try await engine.register(fixture.name, paths: [source.path])
            let other = try #require(CheckpointName("other"))
            try await engine.register(other, paths: [source.path])
            let started = try await engine.startUpdate(fixture.name, fixture.request(engines))
            #expect(try await engine.checkpoint(fixture.name).state == .updating)
            let refusals = [
                await #expect(throws: EngineError.self) {
                    try await engine.unregister(fixture.name)
                },
                await #expect(throws: EngineError.self) {
                    try await engine.startUpdate(fixture.name, fixture.request(engines))
                },
                // The same engine from another checkpoint.
                await #expect(throws: EngineError.self) {
                    try await engine.startUpdate(other, fixture.request(engines))
                },
            ]
            for error in refusals {
                #expect(error?.code == .busy)
                #expect(error?.message.contains(started.id) == true)
            }
            // A waiter may leave without ending the update.
            let waiter = Task { try await engine.finishedUpdate(started.id) }
            waiter.cancel()
            #expect(try await waiter.value.state == .running)
            try await engine.cancelUpdate(started.id, reason: "enough")
            let ended = try await engine.finishedUpdate(started.id)
            #expect(ended.error?.code == EngineError.Code.cancelled.rawValue)
            #expect(ended.error?.message == "enough")
            let late = await #expect(throws: EngineError.self) {
                try await engine.cancelUpdate(started.id, reason: "again")
            }
            #expect(late?.code == .busy)
            try await engine.unregister(fixture.name)
        }
    }

    @Test func whoeverCancelsTheLastStepIsQuoted() async throws {
        let hasCommitted = Atomic(false)
        try await UpdateFixture.with(engines: { fixture in
            [
                try InProcessEngine("one", in: fixture.disk, workers: 1) { request in
                    guard request.target == "/reset_prefix_cache" else { return nil }
                    hasCommitted.store(true, ordering: .releasing)
                    return .hang
                }
            ]
        }) { fixture, engines in
            let source = try TemporaryDirectory()
            _ = try fixture.write(layout: 1, data: 2, to: source)
            try await fixture.engine.register(fixture.name, paths: [source.path])
            let started = try await fixture.engine.startUpdate(
                fixture.name, fixture.request(engines))
            while !hasCommitted.load(ordering: .acquiring) {
                try await Task.sleep(for: .milliseconds(5))
            }
            try await fixture.engine.cancelUpdate(started.id, reason: "enough")
            let ended = try await fixture.engine.finishedUpdate(started.id)
            #expect(ended.error?.code == EngineError.Code.cancelled.rawValue)
            #expect(ended.error?.message.hasPrefix("enough") == true)
            #expect(ended.workers.allSatisfy { $0.committed })
        }
    }

    @Test func shuttingDownEndsWhatRuns() async throws {
        try await UpdateFixture.with(engines: { fixture in
            [
                try InProcessEngine("one", in: fixture.disk, workers: 1) { request in
                    request.target == "/collective_rpc" ? .hang : nil
                }
            ]
        }) { fixture, engines in
            let source = try TemporaryDirectory()
            _ = try fixture.write(layout: 1, data: 2, to: source)
            try await fixture.engine.register(fixture.name, paths: [source.path])
            let started = try await fixture.engine.startUpdate(
                fixture.name, fixture.request(engines))
            let start = ContinuousClock.now
            await fixture.engine.shutDown()
            #expect(start.duration(to: .now) < .seconds(20))
            let ended = try await fixture.engine.update(started.id)
            #expect(ended.error?.code == EngineError.Code.cancelled.rawValue)
            let refused = await #expect(throws: EngineError.self) {
                try await fixture.engine.register(fixture.name, paths: [source.path])
            }
            #expect(refused?.code == .cancelled)
        }
    }

    @Test func aCancelledRegistrationLeavesNothing() async throws {
        try await UpdateFixture.with(engines: { _ in [] }) { fixture, _ in
            let source = try TemporaryDirectory()
            _ = try fixture.write(layout: 1, data: 2, to: source)
            let isCancelled = Atomic(false)
            let hasStarted = Atomic(false)
            let engine = fixture.engine
            let name = fixture.name
            let task = Task {
                try await engine.register(name, paths: [source.path]) { _, _ in
                    hasStarted.store(true, ordering: .releasing)
                    // The registration waits in its first report until it has been cancelled.
                    while !isCancelled.load(ordering: .acquiring) {}
                }
            }
            while !hasStarted.load(ordering: .acquiring) { await Task.yield() }
            #expect(try await engine.checkpoint(name).state == .registering)
            let busy = await #expect(throws: EngineError.self) { try await engine.unregister(name) }
            #expect(busy?.code == .busy)
            task.cancel()
            isCancelled.store(true, ordering: .releasing)
            let error = await #expect(throws: EngineError.self) { try await task.value }
            #expect(error?.code == .cancelled)
            let statistics = await engine.statistics()
            #expect(statistics.checkpoints == 0 && statistics.registrationFailures == 1)
            #expect(statistics.pooledBytes == 0 && statistics.retainedBytes == 0)
            try await engine.register(name, paths: [source.path])
        }
    }
}
