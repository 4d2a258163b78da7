import CheckpointPlan
import CheckpointTesting
import CheckpointTransfer
import Testing

@testable import CheckpointPull

/// Sources whose host stands still: daemon and agent take calls and answer none.
@Suite(.timeLimit(.minutes(2)))
struct PullSilenceTests {
    private let fixture: PullFixture
    private let content: FakeContent

    init() throws {
        fixture = try PullFixture()
        // Several blocks of checksums.
        content = try FakeContent.random(
            shardByteCounts: [6_000_000], seed: .random(in: 0 ... .max))
    }

    /// Whichever source decides about the checksums, the other one's bytes do not wait for it.
    @Test(arguments: [0, 1], [4, 20]) func itIsLeft(_ number: Int, _ stallSeconds: Int)
        async throws
    {
        try await FakeSource.with([content, content], fixture) { sources in
            var slow = FakeTransferAgent.Fault()
            slow.delaySeconds = 0.02
            for source in sources { try source.set(slow) }
            let silent = sources[number]
            let request = try fixture.request(sources, stall: .seconds(stallSeconds))
            let start = ContinuousClock.now
            let outcome = try await fixture.pull(request) { feed in
                try await PullFixture.wait("a part has arrived") { feed.arrivedChunkCount > 300 }
                var hanging = FakeTransferAgent.Fault()
                hanging.hangs = true
                try silent.set(hanging)
                silent.update { $0.hangs = true }
                return false
            }
            #expect(outcome.error == nil)
            #expect(outcome.shards == content.shards)
            let took = start.duration(to: .now).inSeconds
            #expect(took < 30, "it took \(took) s")
        }
    }

    @Test func itIsNotWaitedForInTheBeginning() async throws {
        try await FakeSource.with([content, content], fixture) { sources in
            sources[0].update { $0.hangs = true }
            let start = ContinuousClock.now
            let offer = try await fixture.offer(fixture.request(sources))
            #expect(offer.order.grid == (try content.grid))
            let took = start.duration(to: .now).inSeconds
            #expect((1.0...15).contains(took), "it took \(took) s")
            #expect(sources[1].now.endedCount == 1)
            await fixture.client.shutDown()
        }
    }

    @Test func aStartThatWaitsIsCancelled() async throws {
        try await FakeSource.with([content], fixture) { sources in
            sources[0].update { $0.hangs = true }
            let start = ContinuousClock.now
            let error = await #expect(throws: PullError.self) {
                try await PullOffer.ask(fixture.request(sources), client: fixture.client) {
                    start.duration(to: .now) > .milliseconds(300)
                }
            }
            #expect(error?.code == .cancelled)
            #expect(start.duration(to: .now) < .seconds(10))
            await fixture.client.shutDown()
        }
    }
}
