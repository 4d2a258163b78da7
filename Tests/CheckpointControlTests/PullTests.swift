import CheckpointEngine
import CheckpointModel
import CheckpointPull
import CheckpointTesting
import FoundationEssentials
import Testing

@testable import CheckpointControl

/// Pulls between real daemons over HTTP; only the bytes' transfer is a fake.
@Suite("Pulls between daemons", .serialized, .timeLimit(.minutes(3)))
struct PullTests {
    private static func slow(_ seconds: Double) -> FakeTransferAgent.Fault {
        var fault = FakeTransferAgent.Fault()
        fault.delaySeconds = seconds
        return fault
    }

    private func wait(
        _ what: String, until isTrue: @Sendable () async throws -> Bool
    ) async throws {
        for _ in 0..<3000 {
            if try await isTrue() { return }
            try await Task.sleep(for: .milliseconds(10))
        }
        Issue.record("never: \(what)")
    }

    @Test func aCheckpointGoesFromHostToHost() async throws {
        try await PullFixture.with(2) { fixture in
            let shards = try await fixture.register(at: [0])
            let (source, reader) = (fixture.daemons[0].engine, fixture.daemons[1].engine)
            let name = try fixture.name
            let begun = try await reader.pull(name, sources: [fixture.address(0)])
            #expect(begun.tensors == 6 && begun.bytes == 5_000_005)
            let done = try await reader.finishedPull(name)
            #expect(done.state == .ready && done.registeredBytes == 5_000_005)
            try fixture.expect(shards, at: 1)
            // Everything is there before the agent has let go of it.
            try await wait("the pull has ended") { await reader.statistics().pulls == 1 }
            let statistics = await reader.statistics()
            #expect(statistics.pulls == 1 && statistics.pullFailures == 0)
            #expect(statistics.pulledBytes == 5_000_005)
            try await wait("the leases have ended") { await source.statistics().leases == 0 }
            // What was read can be read from here.
            try await source.unregister(name, releasesMemory: true)
            try await source.pull(name, sources: [fixture.address(1)])
            #expect(try await source.finishedPull(name).state == .ready)
            try fixture.expect(shards, at: 0)
        }
    }

    @Test func anUnknownNameIsNotFoundAtTheSources() async throws {
        try await PullFixture.with(2) { fixture in
            let reader = fixture.daemons[1].engine
            let name = try fixture.name
            let start = ContinuousClock.now
            let error = await #expect(throws: EngineError.self) {
                try await reader.pull(name, sources: [fixture.address(0)])
            }
            #expect(error?.code == .sourceFailed)
            #expect(error?.message.contains("no checkpoint is registered as step") == true)
            let wrong = await #expect(throws: EngineError.self) {
                try await reader.pull(
                    name, sources: [fixture.address(0, token: String(repeating: "x", count: 40))])
            }
            #expect(wrong?.code == .sourceFailed)
            #expect(wrong?.message.contains("401") == true)
            #expect(start.duration(to: .now) < .seconds(15))
            let none = await #expect(throws: EngineError.self) {
                try await reader.pull(name, sources: [])
            }
            #expect(none?.code == .invalidArgument)
            #expect(await reader.checkpoints().isEmpty)
        }
    }

    @Test func aTakenNameStaysUntouched() async throws {
        try await PullFixture.with(2) { fixture in
            try await fixture.register(at: [0, 1])
            let reader = fixture.daemons[1].engine
            let name = try fixture.name
            let error = await #expect(throws: EngineError.self) {
                try await reader.pull(name, sources: [fixture.address(0)])
            }
            #expect(error?.code == .alreadyExists)
            let other = try #require(CheckpointName("other"))
            try await reader.pull(other, remoteName: name, sources: [fixture.address(0)])
            #expect(try await reader.finishedPull(other).state == .ready)
            #expect(await reader.checkpoints().map(\.name) == ["other", "step"])
        }
    }

    @Test func unregisteringEndsAPull() async throws {
        try await PullFixture.with(2) { fixture in
            try await fixture.register(at: [0], byteCounts: [30_000_000])
            let (source, reader) = (fixture.daemons[0].engine, fixture.daemons[1].engine)
            let name = try fixture.name
            // The source's agent, and so its session, begins with the first lease.
            try await source.endLease(leaseID(try await source.beginLease(name, reader: nil)))
            for port in fixture.agent.ports { try fixture.agent.set(Self.slow(0.3), port: port) }
            let begun = try await reader.pull(name, sources: [fixture.address(0)])
            #expect(begun.state == .pulling)
            let waiting = Task { try await reader.finishedPull(name) }
            try await Task.sleep(for: .milliseconds(500))
            let summary = try await reader.checkpoint(name)
            #expect(summary.state == .pulling && summary.registeredBytes < summary.bytes)
            try await reader.unregister(name)
            let error = await #expect(throws: EngineError.self) { try await waiting.value }
            #expect(error?.code == .cancelled || error?.code == .notFound)
            #expect(await reader.checkpoints().isEmpty)
            try await wait("the leases have ended") { await source.statistics().leases == 0 }
            #expect(await reader.statistics().pullFailures == 0)
            for port in fixture.agent.ports { try fixture.agent.set(nil, port: port) }
            try await reader.pull(name, sources: [fixture.address(0)])
            #expect(try await reader.finishedPull(name).state == .ready)
        }
    }

    private func leaseID(_ bytes: [UInt8]) throws -> String { try SourceLease(bytes).id }

    @Test func aPullThatFailsFreesItsName() async throws {
        try await FakeEngine.with(answer: nil) { url in
            try await PullFixture.with(2) { fixture in
                try await fixture.register(at: [0], byteCounts: [30_000_000])
                let (source, reader) = (fixture.daemons[0].engine, fixture.daemons[1].engine)
                let name = try fixture.name
                try await source.endLease(leaseID(try await source.beginLease(name, reader: nil)))
                for port in fixture.agent.ports {
                    try fixture.agent.set(Self.slow(0.3), port: port)
                }
                try await reader.pull(name, sources: [fixture.address(0)])
                let started = try await reader.startUpdate(
                    name,
                    UpdateRequest(
                        instances: [
                            EngineInstance(
                                updateURL: try HTTPURL(url), unixSocketPath: nil, workerCount: 1,
                                kind: .vllm)
                        ], timeoutSeconds: 60))
                try await Task.sleep(for: .milliseconds(500))
                try await source.unregister(name)
                let error = await #expect(throws: EngineError.self) {
                    try await reader.finishedPull(name)
                }
                #expect(error?.code == .sourceFailed || error?.code == .notFound)
                let update = try await reader.finishedUpdate(started.id)
                #expect(update.state == .failed)
                #expect(update.error?.code == EngineError.Code.sourceFailed.rawValue, "\(update)")
                try await wait("the name is free") { await reader.checkpoints().isEmpty }
                #expect(await reader.statistics().pullFailures == 1)
            }
        }
    }

    /// The second reader waits for the source, and reads what the first one has.
    @Test func readersFormAChain() async throws {
        try await PullFixture.with(3) { fixture in
            let shards = try await fixture.register(at: [0], byteCounts: [12_000_000])
            let name = try fixture.name
            let source = fixture.daemons[0].engine
            try await source.endLease(leaseID(try await source.beginLease(name, reader: nil)))
            for port in fixture.agent.ports { try fixture.agent.set(Self.slow(0.05), port: port) }
            let (first, second) = (fixture.daemons[1].engine, fixture.daemons[2].engine)
            try await first.pull(name, sources: [fixture.address(0)])
            try await second.pull(name, sources: [fixture.address(0)])
            try await wait("the first one is read from") {
                await first.statistics().leasesBegun > 0
            }
            #expect(try await first.finishedPull(name).state == .ready)
            #expect(try await second.finishedPull(name).state == .ready)
            try fixture.expect(shards, at: 1)
            try fixture.expect(shards, at: 2)
        }
    }

    @Test func theDaemonStopsWhileItLooksForSources() async throws {
        try await PullFixture.with(1) { fixture in
            let engine = fixture.daemons[0].engine
            let name = try fixture.name
            let nobody = try SourceAddress(url: "http://127.0.0.1:9")
            let pulling = Task {
                try await engine.pull(name, sources: [nobody], stallTimeout: .seconds(100))
            }
            try await wait("the pull has begun") { await !engine.checkpoints().isEmpty }
            let start = ContinuousClock.now
            await engine.shutDown()
            #expect(start.duration(to: .now) < .seconds(15))
            let error = await #expect(throws: EngineError.self) { try await pulling.value }
            #expect(error?.code == .cancelled)
        }
    }

    @Test func theDaemonStopsWhileItReads() async throws {
        try await PullFixture.with(2) { fixture in
            try await fixture.register(at: [0], byteCounts: [30_000_000])
            let (source, reader) = (fixture.daemons[0].engine, fixture.daemons[1].engine)
            let name = try fixture.name
            try await source.endLease(leaseID(try await source.beginLease(name, reader: nil)))
            for port in fixture.agent.ports { try fixture.agent.set(Self.slow(0.3), port: port) }
            try await reader.pull(name, sources: [fixture.address(0)])
            let start = ContinuousClock.now
            await reader.shutDown()
            #expect(start.duration(to: .now) < .seconds(10))
        }
    }

    @Test func withoutAnAgentThereIsNoPull() async throws {
        try await PullFixture.with(2, environment: ["FAKE_FAILURE": "pip install it"]) { fixture in
            try await fixture.register(at: [0])
            let source = fixture.daemons[0].engine
            let name = try fixture.name
            let refused = await #expect(throws: EngineError.self) {
                try await source.beginLease(name, reader: nil)
            }
            #expect(refused?.code == .system)
            #expect(refused?.message.contains("pip install it") == true)
            let start = ContinuousClock.now
            let error = await #expect(throws: EngineError.self) {
                try await fixture.daemons[1].engine.pull(name, sources: [fixture.address(0)])
            }
            #expect(error?.code == .sourceFailed)
            #expect(error?.message.contains("pip install it") == true)
            #expect(start.duration(to: .now) < .seconds(15))
            // Everything else works.
            #expect(try await source.gatherMetas(name).ranks[0]?.source == nil)
        }
    }

    @Test func metasNameTheDaemon() async throws {
        try await PullFixture.with(2) { fixture in
            try await fixture.register(at: [0])
            let name = try fixture.name
            let url = fixture.daemons[0].url
            let document = try await fixture.daemons[0].engine.gatherMetas(name)
            #expect(document.ranks[0]?.source == .init(url: url, checkpoint: "step"))
            #expect(document.ranks[0]?.buffers.allSatisfy { $0.ptr > 0 } == true)
            let other = fixture.daemons[1].engine
            let token = PullFixture.token
            #expect(try await other.loadMetas(from: url + "/v1/metas", token: token) == [url])
            #expect(await other.metas() == document)
            #expect(try await other.loadMetas(from: url, token: token) == [url])
            let refused = await #expect(throws: EngineError.self) {
                try await other.loadMetas(from: url, token: nil)
            }
            #expect(refused?.code == .sourceFailed)
            let wrong = await #expect(throws: EngineError.self) {
                try await other.loadMetas(from: url + "/v2/metas", token: token)
            }
            #expect(wrong?.code == .invalidArgument)
        }
    }
}
