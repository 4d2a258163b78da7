import CheckpointModel
import CheckpointPlan
import CheckpointTesting
import Testing

@testable import CheckpointPull

/// Whole pulls that end well.
@Suite(.timeLimit(.minutes(2)))
struct PullRunTests {
    private let fixture: PullFixture

    init() throws { fixture = try PullFixture() }

    private func content(_ shardByteCounts: [Int] = [300_000, 1, 123_456]) throws -> FakeContent {
        try FakeContent.random(
            shardByteCounts: shardByteCounts, seed: .random(in: 0 ... .max))
    }

    @Test func oneSourceIsRead() async throws {
        let content = try content()
        try await FakeSource.with([content], fixture) { sources in
            let outcome = try await fixture.pull(fixture.request(sources))
            #expect(outcome.error == nil)
            #expect(outcome.shards == content.shards)
            #expect(outcome.bytesBySource == [sources[0].url: 423_457])
            #expect(outcome.feed.isComplete)
            let known = (0..<outcome.feed.order.grid.count).map(outcome.checksums.known)
            #expect(try known == content.checksums())
            let state = sources[0].now
            // The offer's lease and the run's.
            #expect(state.begunCount == 2 && state.endedCount == 2 && state.leases.isEmpty)
        }
    }

    @Test func whatHasNoTensorsIsRefused() async throws {
        try await FakeSource.with([try content([0])], fixture) { sources in
            let refusal = await #expect(throws: PullError.self) {
                try await fixture.pull(fixture.request(sources))
            }
            #expect(refusal?.message.contains("without tensors") == true)
        }
    }

    @Test(arguments: [[5000, 0, 0, 4096], [0, 1]])
    func shardsMayBeEmpty(_ shardByteCounts: [Int]) async throws {
        let content = try content(shardByteCounts)
        try await FakeSource.with([content], fixture) { sources in
            let outcome = try await fixture.pull(fixture.request(sources))
            #expect(outcome.error == nil)
            #expect(outcome.shards == content.shards)
        }
    }

    @Test func twoSourcesShareTheWork() async throws {
        let content = try content([3_000_000])
        try await FakeSource.with([content, content], fixture) { sources in
            for source in sources {
                var fault = FakeTransferAgent.Fault()
                fault.delaySeconds = 0.02
                try source.set(fault)
            }
            let outcome = try await fixture.pull(fixture.request(sources))
            #expect(outcome.error == nil)
            #expect(outcome.shards == content.shards)
            let shares = outcome.bytesBySource.values
            #expect(shares.reduce(0, +) == 3_000_000)
            #expect(shares.allSatisfy { $0 > 300_000 }, "\(shares)")
        }
    }

    @Test func aLeaseWaitsForItsTurn() async throws {
        let content = try content()
        try await FakeSource.with([content], fixture) { sources in
            sources[0].update { $0.isActive = false }
            let outcome = try await fixture.pull(fixture.request(sources)) { feed in
                try await Task.sleep(for: .milliseconds(500))
                #expect(feed.arrivedChunkCount == 0)
                sources[0].update { $0.isActive = true }
                return false
            }
            #expect(outcome.error == nil)
            #expect(outcome.shards == content.shards)
        }
    }

    @Test func whoWaitsReadsFromAnEarlierReader() async throws {
        let content = try content()
        let token = "secret"
        try await FakeSource.with([content, content], fixture) { sources in
            let (source, reader) = (sources[0], sources[1])
            source.update {
                $0.isActive = false
                $0.readers = [reader.url, "ftp://nobody", "http://here:1"]
                $0.token = token
            }
            reader.update {
                $0.arrived = []
                $0.token = token
            }
            let order = try await fixture.offer(fixture.request([source], token: token)).order
            let outcome = try await fixture.pull(
                fixture.request([source], reader: "http://here:1", token: token)
            ) { feed in
                // From the end: what follows is not in the order.
                for end in stride(from: order.count, to: 0, by: -20) {
                    reader.update { $0.arrived = [max(0, end - 20)..<order.count] }
                    let expected = order.count - max(0, end - 20)
                    try await PullFixture.wait("\(expected) chunks") {
                        feed.arrivedChunkCount == expected
                    }
                }
                return false
            }
            #expect(outcome.error == nil)
            #expect(outcome.shards == content.shards)
            #expect(outcome.bytesBySource[reader.url] == 423_457)
            #expect(outcome.bytesBySource[source.url] == 0)
            #expect(outcome.bytesBySource.count == 2)
            #expect(source.now.seenReaders == [nil, nil, "http://here:1"])
            // Only a complete source tells what chunks have to be.
            #expect(!reader.now.requests.contains { $0.contains("checksums") })
        }
    }

    @Test func aSlowAgentIsNoStall() async throws {
        let content = try content()
        try await FakeSource.with([content], fixture) { sources in
            var fault = FakeTransferAgent.Fault()
            fault.delaySeconds = 0.5
            try sources[0].set(fault)
            let outcome = try await fixture.pull(
                fixture.request(sources, stall: .seconds(2)),
                environment: ["FAKE_START_SECONDS": "3"])
            #expect(outcome.error == nil)
            #expect(outcome.shards == content.shards)
        }
    }

    /// Up to three sources that fail now and then, but none for good.
    @Test(arguments: 0..<6)
    func passingFaultsLeaveNothingBehind(_ round: Int) async throws {
        let seed = UInt64.random(in: 0 ... .max)
        var generator = SeededGenerator(seed: seed)
        let counts = (0..<3).map { _ in Int.random(in: 0...900_000, using: &generator) }
        let content = try content(counts)
        let sourceCount = Int.random(in: 1...3, using: &generator)
        try await FakeSource.with([FakeContent](repeating: content, count: sourceCount), fixture) {
            sources in
            for source in sources {
                var fault = FakeTransferAgent.Fault(count: .random(in: 0...2, using: &generator))
                switch Int.random(in: 0..<4, using: &generator) {
                case 0: fault.flips = true
                case 1: fault.fails = true
                case 2: fault.kills = true
                default: fault.delaySeconds = 0.2
                }
                try source.set(fault)
            }
            let outcome = try await fixture.pull(fixture.request(sources))
            #expect(outcome.error == nil, "seed \(seed)")
            #expect(outcome.shards == content.shards, "seed \(seed)")
        }
    }
}
