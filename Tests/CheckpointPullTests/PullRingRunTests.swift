import CheckpointModel
import CheckpointPlan
import CheckpointTesting
import Testing

@testable import CheckpointPull

/// Pulls through a ring that is much smaller than what is read.
@Suite(.timeLimit(.minutes(2)))
struct PullRingRunTests {
    private static let slotCount = 16
    private let fixture: PullFixture

    init() throws { fixture = try PullFixture() }

    private func content() throws -> FakeContent {
        try FakeContent.random(
            shardByteCounts: [300_000, 0, 1, 123_456], seed: .random(in: 0 ... .max))
    }

    /// A pull and the engine that takes what it brings.
    private struct Passage {
        let ring: PullRing
        let offer: PullOffer
        let target: PullRun.Target
        let room: PullRoom
        private let memory: TemporaryDirectory

        init(_ offer: PullOffer) throws {
            memory = try TemporaryDirectory()
            let ranges = offer.catalog.tensors.map {
                ShardRange(shard: $0.shard, range: $0.range)
            }
            ring = try PullRing(
                grid: offer.order.grid, ranges: ranges, slotCount: PullRingRunTests.slotCount)
            let path = try memory.write([UInt8](repeating: 0, count: ring.byteCount), to: "ring")
            room = PullRoom()
            self.offer = offer
            target = PullRun.Target(
                .ring(ring), locations: [try PullFixture.location(path)],
                feed: PullFeed(order: ring.order),
                checksums: ChunkChecksums(grid: offer.order.grid), room: room)
        }

        /// Compares each tensor as soon as it is there, and gives its place back.
        func take(_ content: FakeContent, after pause: @Sendable (Int) async throws -> Void)
            async throws
        {
            let (events, continuation) = AsyncStream.makeStream(of: PullFeed.Event.self)
            let follower = target.feed.follow { continuation.yield($0) }
            defer { target.feed.unfollow(follower) }
            var taken = 0
            for await event in events {
                guard case .ranges(let count) = event else { return }
                while taken < count {
                    try await pause(taken)
                    let tensor = offer.catalog.tensors[taken]
                    let memory = try TemporaryDirectory.read(target.locations[0].path)
                    let start = ring.offsets[taken]
                    let expected = content.shards[tensor.shard][
                        tensor.range.offset..<tensor.range.end]
                    #expect(memory[start..<(start + tensor.range.byteCount)] == expected)
                    taken += 1
                    room.release(taken)
                }
                if taken == offer.catalog.tensors.count { return }
            }
        }
    }

    private func pass(
        _ sources: [FakeSource], _ content: FakeContent,
        after pause: @escaping @Sendable (Int) async throws -> Void = { _ in }
    ) async throws -> (error: PullError?, bytesBySource: [String: Int]) {
        let offer = try await fixture.offer(fixture.request(sources, reader: "http://here:1"))
        let passage = try Passage(offer)
        let agents = SpareAgents(fixture.configuration(), logger: PullFixture.quiet)
        let run = try PullRun(
            offer, into: passage.target, agents: agents, logger: PullFixture.quiet)
        try await run.prepare()
        async let taking: Void = passage.take(content, after: pause)
        let error = await PullFixture.error { () throws(PullError) in try await run.run() }
        try await taking
        await agents.stop()
        await fixture.client.shutDown()
        #expect(fixture.agent.processes.isEmpty)
        return (error, await run.bytesBySource)
    }

    @Test func everythingPassesThrough() async throws {
        let content = try content()
        try await FakeSource.with([content, content], fixture) { sources in
            let (error, bytes) = try await pass(sources, content)
            #expect(error == nil)
            // Nobody can read from there.
            #expect(sources.allSatisfy { $0.now.seenReaders.allSatisfy { $0 == nil } })
            // Some chunks twice: where the ring begins anew.
            let sum = bytes.values.reduce(0, +)
            #expect((423_457...(423_457 + 30 * 4096)).contains(sum))
        }
    }

    @Test func whoWaitsForItsEngineGivesWayToOthers() async throws {
        let content = try content()
        try await FakeSource.with([content], fixture) { sources in
            let (error, _) = try await pass(sources, content) { taken in
                guard taken == 3 else { return }
                try await PullFixture.wait("the lease has ended") { sources[0].now.leases.isEmpty }
                #expect(sources[0].now.begunCount == 2)
            }
            #expect(error == nil)
            #expect(sources[0].now.begunCount == 3 && sources[0].now.leases.isEmpty)
        }
    }

    @Test func anotherVersionInTheMeantimeIsNoticed() async throws {
        let content = try content()
        try await FakeSource.with([content], fixture) { sources in
            let (error, _) = try await pass(sources, content) { taken in
                guard taken == 3 else { return }
                try await PullFixture.wait("the lease has ended") { sources[0].now.leases.isEmpty }
                sources[0].update { $0.incarnation = "2" }
            }
            #expect(error?.code == .sourceFailed)
            #expect(error?.message.contains("replaced") == true)
        }
    }

    @Test func anEngineThatIsSlowIsNoStall() async throws {
        let content = try content()
        try await FakeSource.with([content], fixture) { sources in
            let request = try fixture.request(sources, stall: .seconds(4))
            let passage = try Passage(try await fixture.offer(request))
            let agents = SpareAgents(fixture.configuration(), logger: PullFixture.quiet)
            let run = try PullRun(
                passage.offer, into: passage.target, agents: agents, logger: PullFixture.quiet)
            try await run.prepare()
            async let taking: Void = passage.take(content) { taken in
                if taken == 5 { try await Task.sleep(for: .seconds(6)) }
            }
            let error = await PullFixture.error { () throws(PullError) in try await run.run() }
            try await taking
            #expect(error == nil)
            await agents.stop()
            await fixture.client.shutDown()
        }
    }
}
