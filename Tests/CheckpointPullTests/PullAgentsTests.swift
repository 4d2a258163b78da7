import CheckpointModel
import CheckpointTesting
import Testing

@testable import CheckpointPull

/// Pulls with several agents on both sides.
@Suite(.timeLimit(.minutes(2)))
struct PullAgentsTests {
    private let fixture: PullFixture

    init() throws { fixture = try PullFixture() }

    private func content() throws -> FakeContent {
        try FakeContent.random(
            shardByteCounts: [3_000_000, 7, 123_456], seed: .random(in: 0 ... .max))
    }

    private static func slow(_ seconds: Double) -> FakeTransferAgent.Fault {
        var fault = FakeTransferAgent.Fault()
        fault.delaySeconds = seconds
        return fault
    }

    @Test(arguments: [(1, 3), (2, 1), (2, 2), (3, 2)])
    func allOfThemRead(_ readers: Int, _ endpoints: Int) async throws {
        let content = try content()
        try await FakeSource.with([content], fixture) { sources in
            sources[0].update { $0.endpointCount = endpoints }
            for endpoint in 0..<endpoints {
                try sources[0].set(Self.slow(0.01), endpoint: endpoint)
            }
            let outcome = try await fixture.pull(
                fixture.request(sources), agentCount: readers)
            #expect(outcome.error == nil)
            #expect((outcome.shards == content.shards) == true)
            #expect(outcome.bytesBySource == [sources[0].url: 3_123_463])
        }
    }

    /// Of two that read, the one that reads from a source that does not end it is enough.
    @Test func oneThatEndsIsReplaced() async throws {
        let content = try content()
        try await FakeSource.with([content], fixture) { sources in
            sources[0].update { $0.endpointCount = 2 }
            try sources[0].set(Self.slow(0.01))
            var kills = FakeTransferAgent.Fault(count: 2)
            kills.kills = true
            try sources[0].set(kills, endpoint: 1)
            let outcome = try await fixture.pull(fixture.request(sources), agentCount: 2)
            #expect(outcome.error == nil)
            #expect((outcome.shards == content.shards) == true)
        }
    }

    @Test func aSourcesAgentsComeAndGo() async throws {
        let content = try content()
        try await FakeSource.with([content], fixture) { sources in
            sources[0].update { $0.endpointCount = 2 }
            for endpoint in 0..<3 { try sources[0].set(Self.slow(0.3), endpoint: endpoint) }
            let outcome = try await fixture.pull(fixture.request(sources), agentCount: 2) { feed in
                try await PullFixture.wait("a chunk") { feed.arrivedChunkCount > 0 }
                sources[0].update { $0.endpointCount = 1 }
                try await PullFixture.wait("some more") { feed.arrivedChunkCount > 50 }
                sources[0].update { $0.endpointCount = 3 }
                return false
            }
            #expect(outcome.error == nil)
            #expect((outcome.shards == content.shards) == true)
        }
    }

    @Test func oneAgentThatHangsIsReplacedAlone() async throws {
        let content = try content()
        try await FakeSource.with([content, content], fixture) { sources in
            sources[0].update { $0.endpointCount = 2 }
            var hangs = FakeTransferAgent.Fault(count: 1)
            hangs.hangs = true
            try sources[0].set(hangs, endpoint: 1)
            let outcome = try await fixture.pull(fixture.request(sources), agentCount: 2)
            #expect(outcome.error == nil)
            #expect((outcome.shards == content.shards) == true)
        }
    }

    /// Both agents of a pull time out together, and would write later: other bytes than the source's.
    @Test func whatTwoAgentsWouldWriteLateSpoilsNothing() async throws {
        let content = try FakeContent.random(
            shardByteCounts: [4_000_000], seed: .random(in: 0 ... .max))
        try await FakeSource.with([content, content], fixture) { sources in
            sources[0].update { $0.endpointCount = 2 }
            var late = Self.slow(4)
            late.flips = true
            for endpoint in 0..<2 { try sources[0].set(late, endpoint: endpoint) }
            try sources[1].set(Self.slow(0.2))
            sources[1].update { $0.isActive = false }
            let request = try fixture.request(sources, stall: .seconds(6))
            let outcome = try await fixture.pull(request, agentCount: 2) { feed in
                try await PullFixture.wait("both have timed out") { sources[0].now.endedCount > 1 }
                sources[0].update { $0.isActive = false }
                sources[1].update { $0.isActive = true }
                // The other one has taken over the chunks, and is not done, when they would write.
                try await Task.sleep(for: .seconds(4))
                #expect(feed.arrivedChunkCount > 0 && !feed.isComplete)
                try sources[1].set(nil)
                return false
            }
            #expect(outcome.error == nil)
            #expect((outcome.shards == content.shards) == true)
            #expect(outcome.bytesBySource == [sources[0].url: 0, sources[1].url: 4_000_000])
        }
    }

    /// Also while others take their places nothing is left of a pull that ends.
    @Test func aPullEndsWhileItsAgentsAreReplaced() async throws {
        let content = try content()
        try await FakeSource.with([content], fixture) { sources in
            sources[0].update { $0.endpointCount = 2 }
            var kills = FakeTransferAgent.Fault()
            kills.kills = true
            for endpoint in 0..<2 { try sources[0].set(kills, endpoint: endpoint) }
            let fixture = fixture
            let outcome = try await fixture.pull(
                fixture.request(sources), environment: ["FAKE_START_SECONDS": "1"], agentCount: 2
            ) { _ in
                try await PullFixture.wait("both have ended") { fixture.agent.processes.isEmpty }
                return true
            }
            #expect(outcome.error?.code == .cancelled)
        }
    }
}
