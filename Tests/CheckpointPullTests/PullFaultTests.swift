import CheckpointModel
import CheckpointPlan
import CheckpointTesting
import CheckpointTransfer
import Logging
import Testing

@testable import CheckpointPull

/// Pulls whose sources, agents or owners do not go on.
@Suite(.timeLimit(.minutes(2)))
struct PullFaultTests {
    private let fixture: PullFixture

    init() throws { fixture = try PullFixture() }

    private func content(
        _ shardByteCounts: [Int] = [4_000_000], seed: UInt64 = .random(in: 0 ... .max)
    ) throws -> FakeContent {
        try FakeContent.random(shardByteCounts: shardByteCounts, seed: seed)
    }

    private static func slow(_ seconds: Double) -> FakeTransferAgent.Fault {
        var fault = FakeTransferAgent.Fault()
        fault.delaySeconds = seconds
        return fault
    }

    private static func flipping(_ count: Int? = nil) -> FakeTransferAgent.Fault {
        var fault = FakeTransferAgent.Fault(count: count)
        fault.flips = true
        return fault
    }

    private static func forget(_ source: FakeSource) {
        source.update {
            $0.isRegistered = false
            $0.leases = []
        }
    }

    /// The chunks that have arrived are those of `content`.
    private func expectOnly(_ content: FakeContent, in outcome: PullFixture.Outcome) throws {
        for (chunk, value) in try content.checksums().enumerated() {
            guard let known = outcome.checksums.known(chunk) else { continue }
            #expect(known == value, "chunk \(chunk)")
        }
    }

    // MARK: Sources that answer errors

    @Test func aSourceInTroubleIsPassedOver() async throws {
        let content = try content()
        try await FakeSource.with([content, content], fixture) { sources in
            sources[0].update { $0.status = 503 }
            let outcome = try await fixture.pull(fixture.request(sources))
            #expect(outcome.error == nil)
            #expect(outcome.shards == content.shards)
            #expect(outcome.bytesBySource[sources[1].url] == 4_000_000)
        }
    }

    @Test func withoutASourceNothingBegins() async throws {
        try await FakeSource.with([try content()], fixture) { sources in
            for (status, seconds) in [
                (503, 1.0...30), (401, 0...10), (404, 0...10), (500, 0...10),
            ] {
                let start = ContinuousClock.now
                sources[0].update { $0.status = status }
                let request = try fixture.request(
                    sources, stall: .seconds(status == 503 ? 1 : 60))
                let error = await #expect(throws: PullError.self) {
                    try await fixture.offer(request)
                }
                #expect(error?.code == .noSource)
                #expect(error?.message.contains("\(status): as the test wants it") == true)
                #expect(error?.message.contains(sources[0].url) == true)
                let took = start.duration(to: .now).inSeconds
                #expect(seconds.contains(took), "\(status): \(took) s")
            }
            await fixture.client.shutDown()
        }
    }

    @Test func anotherSourceTakesOverWhereOneForgets() async throws {
        let content = try content()
        try await FakeSource.with([content, content], fixture) { sources in
            sources[1].update { $0.status = 503 }
            try sources[0].set(Self.slow(0.5))
            let outcome = try await fixture.pull(fixture.request(sources)) { feed in
                try await PullFixture.wait("a chunk") { feed.arrivedChunkCount > 0 }
                Self.forget(sources[0])
                sources[1].update { $0.status = nil }
                return false
            }
            #expect(outcome.error == nil)
            #expect(outcome.shards == content.shards)
            #expect(outcome.bytesBySource.values.allSatisfy { $0 > 0 })
        }
    }

    @Test func theLastSourceThatForgetsEndsThePull() async throws {
        let content = try content()
        try await FakeSource.with([content], fixture) { sources in
            try sources[0].set(Self.slow(0.5))
            let outcome = try await fixture.pull(fixture.request(sources)) { feed in
                try await PullFixture.wait("a chunk") { feed.arrivedChunkCount > 0 }
                Self.forget(sources[0])
                return false
            }
            #expect(outcome.error?.code == .sourceFailed)
            #expect(outcome.error?.message.contains("404") == true, "\(outcome.error as Any)")
            #expect(!outcome.feed.isComplete)
            await #expect(throws: PullError.self) { try await outcome.feed.waitUntilComplete() }
            try expectOnly(content, in: outcome)
        }
    }

    @Test func nothingArrivesAndThePullStalls() async throws {
        try await FakeSource.with([try content()], fixture) { sources in
            sources[0].update { $0.arrived = [] }
            let start = ContinuousClock.now
            let outcome = try await fixture.pull(fixture.request(sources, stall: .seconds(1)))
            #expect(outcome.error?.code == .sourceFailed)
            #expect(outcome.error?.message.contains("nothing has arrived for") == true)
            #expect(start.duration(to: .now) < .seconds(20))
        }
    }

    @Test func anAnswerWithoutItsBodyEndsInTime() async throws {
        try await FakeSource.with([try content()], fixture) { sources in
            let address = try SourceAddress(url: sources[0].url)
            let lease = try await fixture.client.begin(fixture.name, at: address, reader: nil)
            sources[0].update { $0.cutsRenewals = true }
            let start = ContinuousClock.now
            await #expect(throws: SourceClient.Refusal.self) {
                try await fixture.client.renew(lease.id, at: address, timeout: .seconds(2))
            }
            #expect(start.duration(to: .now) < .seconds(15))
            await fixture.client.shutDown()
        }
    }

    @Test func addressesThatAreNotThoseOfTheLease() async throws {
        try await FakeSource.with([try content()], fixture) { sources in
            try sources[0].set(Self.slow(0.5))
            let outcome = try await fixture.pull(fixture.request(sources)) { feed in
                try await PullFixture.wait("a chunk") { feed.arrivedChunkCount > 0 }
                sources[0].update { $0.addressCount = 0 }
                return false
            }
            #expect(outcome.error?.message.contains("names other shards") == true)
        }
    }

    // MARK: Wrong bytes

    @Test func bytesThatAreWrongOnceAreReadAgain() async throws {
        let content = try content()
        try await FakeSource.with([content], fixture) { sources in
            try sources[0].set(Self.flipping(2))
            let outcome = try await fixture.pull(fixture.request(sources))
            #expect(outcome.error == nil)
            #expect(outcome.shards == content.shards)
        }
    }

    @Test func aSourceOfWrongBytesIsGivenUp() async throws {
        let content = try content()
        try await FakeSource.with([content, content], fixture) { sources in
            try sources[0].set(Self.flipping())
            let outcome = try await fixture.pull(fixture.request(sources))
            #expect(outcome.error == nil)
            #expect(outcome.shards == content.shards)
        }
        let other = try PullFixture()
        try await FakeSource.with([content], other) { sources in
            try sources[0].set(Self.flipping())
            let outcome = try await other.pull(other.request(sources))
            #expect(outcome.error?.code == .sourceFailed)
            #expect(outcome.error?.message.contains("again and again") == true)
            try expectOnly(content, in: outcome)
        }
    }

    /// A read of a source that was given up may end later than those of others that take its chunks over.
    @Test(arguments: [1, 2.5]) func aReadThatEndsLateSpoilsNothing(_ seconds: Double) async throws {
        let content = try content([2_000_000])
        try await FakeSource.with([content, content], fixture) { sources in
            var late = Self.flipping()
            late.delaySeconds = seconds
            try sources[0].set(late)
            try sources[1].set(Self.slow(0.2))
            sources[1].update { $0.isActive = false }
            let outcome = try await fixture.pull(fixture.request(sources)) { _ in
                try await PullFixture.wait("the source is given up") {
                    sources[0].now.begunCount > 1 && sources[0].now.leases.isEmpty
                }
                sources[1].update { $0.isActive = true }
                // The other one has taken over the chunks, and is not done, when the read ends.
                try await Task.sleep(for: .seconds(seconds + 0.5))
                try sources[1].set(nil)
                return false
            }
            #expect(outcome.error == nil)
            #expect(outcome.shards == content.shards)
        }
    }

    @Test func versionsAreNeverMixed() async throws {
        let contents = [try content(), try content()]
        try await FakeSource.with(contents, fixture) { sources in
            for source in sources { try source.set(Self.slow(0.02)) }
            let outcome = try await fixture.pull(fixture.request(sources))
            #expect(outcome.error == nil)
            #expect(contents.map(\.shards).contains(outcome.shards))
        }
    }

    /// Also where nothing of the part that is read next has arrived of the first one's.
    @Test func anotherVersionDoesNotTakeOver() async throws {
        let first = try content([12_000_000])
        let second = try content([12_000_000])
        try await FakeSource.with([first, second], fixture) { sources in
            sources[1].update { $0.status = 503 }
            try sources[0].set(Self.slow(0.3))
            let outcome = try await fixture.pull(fixture.request(sources)) { feed in
                try await PullFixture.wait("a chunk") { feed.arrivedChunkCount > 0 }
                Self.forget(sources[0])
                // Long enough to be noticed by the next renewal.
                try await Task.sleep(for: .milliseconds(1500))
                sources[1].update { $0.status = nil }
                return false
            }
            #expect(outcome.error?.code == .sourceFailed)
            #expect(
                outcome.error?.message.contains("another version") == true,
                "\(outcome.error as Any)")
            #expect(outcome.bytesBySource[sources[1].url] == 0)
            try expectOnly(first, in: outcome)
        }
    }

    @Test func aReplacedRegistrationIsNotReadOn() async throws {
        let content = try content()
        try await FakeSource.with([content], fixture) { sources in
            try sources[0].set(Self.slow(0.5))
            let outcome = try await fixture.pull(fixture.request(sources)) { feed in
                try await PullFixture.wait("a chunk") { feed.arrivedChunkCount > 0 }
                sources[0].update {
                    $0.incarnation = "2"
                    $0.leases = []
                }
                return false
            }
            #expect(outcome.error?.code == .sourceFailed)
            try expectOnly(content, in: outcome)
        }
    }

    @Test func otherTensorsAreRefused() async throws {
        let contents = [try content([500_000]), try content([600_000])]
        try await FakeSource.with(contents, fixture) { sources in
            sources[1].update { $0.digest = "d2" }
            let outcome = try await fixture.pull(fixture.request(sources))
            #expect(outcome.error == nil)
            #expect(outcome.shards == contents[0].shards)
            #expect(outcome.bytesBySource[sources[1].url] == 0)
        }
    }

    // MARK: The agent

    @Test func aReadThatHangsIsEndedWithItsAgent() async throws {
        let content = try content()
        try await FakeSource.with([content], fixture) { sources in
            var fault = FakeTransferAgent.Fault(count: 1)
            fault.hangs = true
            try sources[0].set(fault)
            let outcome = try await fixture.pull(fixture.request(sources))
            #expect(outcome.error == nil)
            #expect(outcome.shards == content.shards)
        }
    }

    @Test func anAgentThatDiesIsReplaced() async throws {
        let content = try content()
        try await FakeSource.with([content, content], fixture) { sources in
            var fault = FakeTransferAgent.Fault(count: 2)
            fault.kills = true
            try sources[0].set(fault)
            let outcome = try await fixture.pull(fixture.request(sources))
            #expect(outcome.error == nil)
            #expect(outcome.shards == content.shards)
        }
    }

    @Test func withoutAnAgentNothingIsRead() async throws {
        try await FakeSource.with([try content()], fixture) { sources in
            let outcome = try await fixture.pull(
                fixture.request(sources), environment: ["FAKE_FAILURE": "pip install it"])
            #expect(outcome.error?.code == .agentMissing)
            #expect(outcome.error?.message.contains("pip install it") == true)
            #expect(sources[0].now.leases.isEmpty)
        }
    }

    @Test func memoryThatIsNotThereIsTold() async throws {
        try await FakeSource.with([try content()], fixture) { sources in
            let offer = try await fixture.offer(fixture.request(sources))
            let target = try fixture.target(offer)
            let location = target.locations[0]
            let gone = PullRun.Target(
                target.layout,
                locations: [
                    SegmentLocation(
                        path: location.path, inode: location.inode + 1,
                        fileByteCount: location.fileByteCount, dataOffset: 0)
                ], feed: target.feed, checksums: target.checksums)
            let error = #expect(throws: PullError.self) {
                try PullRun(
                    offer, into: gone,
                    agents: SpareAgents(fixture.configuration(), logger: PullFixture.quiet),
                    logger: PullFixture.quiet)
            }
            #expect(error?.code == .system)
            await fixture.client.shutDown()
        }
    }

    // MARK: The owner

    @Test func aStartIsCancelled() async throws {
        try await FakeSource.with([try content()], fixture) { sources in
            let offer = try await fixture.offer(fixture.request(sources))
            let run = try PullRun(
                offer, into: fixture.target(offer),
                agents: SpareAgents(
                    fixture.configuration(["FAKE_START_SECONDS": "10"]), logger: PullFixture.quiet),
                logger: PullFixture.quiet)
            let task = Task {
                await PullFixture.error { () throws(PullError) in try await run.prepare() }
            }
            try await Task.sleep(for: .milliseconds(200))
            task.cancel()
            #expect(await task.value?.code == .cancelled)
            #expect(fixture.agent.processes.isEmpty)
            await fixture.client.shutDown()
        }
    }

    @Test(arguments: [0, 200, 1000]) func aPullIsCancelled(_ milliseconds: Int) async throws {
        try await FakeSource.with([try content()], fixture) { sources in
            try sources[0].set(Self.slow(0.5))
            let start = ContinuousClock.now
            let outcome = try await fixture.pull(fixture.request(sources)) { _ in
                try await Task.sleep(for: .milliseconds(milliseconds))
                return true
            }
            #expect(outcome.error?.code == .cancelled, "\(outcome.error as Any)")
            #expect(start.duration(to: .now) < .seconds(30))
            try await PullFixture.wait("the leases end") { sources[0].now.leases.isEmpty }
            let error = await #expect(throws: PullError.self) {
                try await outcome.feed.waitUntilComplete()
            }
            #expect(error?.code == .cancelled)
        }
    }
}
