import CheckpointModel
import CheckpointPlan
import CheckpointTesting
import Synchronization
import Testing

@testable import CheckpointPull

@Suite(.timeLimit(.minutes(1)))
struct PullFeedTests {
    private final class Log: Sendable {
        private let kept = Mutex<[PullFeed.Event]>([])
        var events: [PullFeed.Event] { kept.withLock { $0 } }
        func note(_ event: PullFeed.Event) { kept.withLock { $0.append(event) } }
    }

    /// Ranges of ten chunks each, the last shard's first.
    private static func order(rangeCount: Int) throws -> PullOrder {
        let grid = try #require(ChunkGrid(shardByteCounts: [500, 500], chunkByteCount: 10))
        let ranges = try (0..<rangeCount).map { index in
            ShardRange(
                shard: index < 5 ? 1 : 0,
                range: try #require(ByteRange(offset: index % 5 * 100, byteCount: 100)))
        }
        return try #require(PullOrder(grid: grid, ranges: ranges))
    }

    @Test func runsAreThePlacesThatHaveArrived() throws {
        let order = try Self.order(rangeCount: 10)
        let feed = PullFeed(order: order)
        #expect(feed.runs.isEmpty)
        var generator = SeededGenerator(seed: .random(in: 0 ... .max))
        var places = Set<Int>()
        for place in (0..<100).shuffled(using: &generator) {
            feed.insert([order.chunks[place], order.chunks[place]])
            places.insert(place)
            let runs = feed.runs
            #expect(runs.reduce(0) { $0 + $1.count } == places.count)
            #expect(runs.allSatisfy { run in run.allSatisfy(places.contains) })
            #expect(zip(runs, runs.dropFirst()).allSatisfy { $0.upperBound < $1.lowerBound })
            #expect(feed.arrivedChunkCount == places.count)
        }
        #expect(feed.runs == [0..<100])
        #expect(feed.isComplete)
    }

    @Test func chunksThatNobodyWantsAreNothing() throws {
        let feed = PullFeed(order: try Self.order(rangeCount: 5))
        feed.insert([0, 49, 1000, -1])
        #expect(feed.runs.isEmpty && feed.arrivedChunkCount == 0)
        feed.insert(Array(50..<100))
        #expect(feed.isComplete)
    }

    @Test func followersHearOfRanges() throws {
        let order = try Self.order(rangeCount: 10)
        let feed = PullFeed(order: order)
        let (first, second) = (Log(), Log())
        let follower = feed.follow(first.note)
        feed.insert(Array(order.chunks[..<9]))
        feed.insert([order.chunks[25]])
        feed.insert([order.chunks[9]])
        _ = feed.follow(second.note)
        feed.insert(Array(order.chunks[10..<25]))
        feed.unfollow(follower)
        feed.insert(Array(order.chunks[26...]))
        #expect(first.events == [.ranges(0), .ranges(1), .ranges(2)])
        #expect(second.events == [.ranges(1), .ranges(2), .ranges(10)])
    }

    @Test func aFailureIsToldOnceAndToAll() async throws {
        let feed = PullFeed(order: try Self.order(rangeCount: 10))
        let early = Log()
        _ = feed.follow(early.note)
        let waiting = Task { () -> PullError? in
            do throws(PullError) {
                try await feed.waitUntilComplete()
                return nil
            } catch {
                return error
            }
        }
        let error = PullError(.sourceFailed, "why")
        feed.fail(error)
        feed.fail(PullError(.cancelled, "later"))
        #expect(early.events == [.ranges(0), .failed(error)])
        let late = Log()
        _ = feed.follow(late.note)
        #expect(late.events == [.ranges(0), .failed(error)])
        #expect(await waiting.value == error)
    }

    @Test func aWaitEnds() async throws {
        let none = PullFeed(order: try Self.order(rangeCount: 0))
        try await none.waitUntilComplete()
        let feed = PullFeed(order: try Self.order(rangeCount: 10))
        let waiting = Task { try await feed.waitUntilComplete() }
        waiting.cancel()
        let error = await #expect(throws: PullError.self) { try await waiting.value }
        #expect(error?.code == .cancelled)
        let complete = Task { try await feed.waitUntilComplete() }
        feed.insert(feed.order.chunks)
        try await complete.value
        try await feed.waitUntilComplete()
    }

    @Test func arrivalsMayComeFromEverywhere() async throws {
        let order = try Self.order(rangeCount: 10)
        let feed = PullFeed(order: order)
        let log = Log()
        _ = feed.follow(log.note)
        await withTaskGroup(of: Void.self) { group in
            for start in 0..<8 {
                group.addTask {
                    for place in stride(from: start, to: order.count, by: 8) {
                        feed.insert([order.chunks[place]])
                        _ = feed.runs
                        feed.unfollow(feed.follow { _ in })
                    }
                }
            }
        }
        let counts = log.events.map { event in
            if case .ranges(let count) = event { count } else { -1 }
        }
        #expect(counts.first == 0 && counts.last == 10)
        #expect(counts == counts.sorted() && Set(counts).count == counts.count)
    }
}
