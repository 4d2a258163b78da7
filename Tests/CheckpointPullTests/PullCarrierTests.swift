import CheckpointModel
import CheckpointPlan
import CheckpointTesting
import Testing

@testable import CheckpointPull

/// Sources that nobody named but another source: they bring bytes, and those that were named say what these
/// have to be.
@Suite(.timeLimit(.minutes(2)))
struct PullCarrierTests {
    private let fixture: PullFixture

    init() throws { fixture = try PullFixture() }

    private func content(_ byteCount: Int = 2_000_000) throws -> FakeContent {
        try FakeContent.random(shardByteCounts: [byteCount], seed: .random(in: 0 ... .max))
    }

    /// A reader that claims to have everything, and has other bytes with checksums of its own.
    @Test func itPoisonsNobody() async throws {
        let contents = [try content(), try content()]
        try await FakeSource.with(contents, fixture) { sources in
            let (good, evil) = (sources[0], sources[1])
            good.update {
                $0.isActive = false
                $0.readers = [evil.url]
            }
            let outcome = try await fixture.pull(fixture.request([good])) { feed in
                try await PullFixture.wait("it is given up") {
                    evil.now.begunCount > 0 && evil.now.leases.isEmpty
                }
                #expect(feed.arrivedChunkCount == 0)
                good.update { $0.isActive = true }
                return false
            }
            #expect(outcome.error == nil)
            #expect((outcome.shards == contents[0].shards) == true)
            #expect(outcome.bytesBySource[evil.url] == 0)
            #expect(!evil.now.requests.contains { $0.contains("checksums") })
        }
    }

    @Test func itIsNamedAsTheOneWithOtherBytes() async throws {
        try await FakeSource.with([try content(), try content()], fixture) { sources in
            let (good, evil) = (sources[0], sources[1])
            good.update {
                $0.isActive = false
                $0.readers = [evil.url]
            }
            let outcome = try await fixture.pull(fixture.request([good])) { _ in
                try await PullFixture.wait("it is given up") {
                    evil.now.begunCount > 0 && evil.now.leases.isEmpty
                }
                good.update {
                    $0.isRegistered = false
                    $0.leases = []
                }
                return false
            }
            #expect(outcome.error?.code == .sourceFailed)
            let message = outcome.error?.message ?? ""
            #expect(message.contains("from \(evil.url) differ from their checksums"), "\(message)")
            #expect(outcome.feed.arrivedChunkCount == 0)
        }
    }

    /// When all checksums are known, the bytes may come from anybody.
    @Test func itBringsTheRestWhenTheOneThatWasNamedIsGone() async throws {
        let content = try content()
        try await FakeSource.with([content, content], fixture) { sources in
            let (good, carrier) = (sources[0], sources[1])
            good.update {
                $0.isActive = false
                $0.readers = [carrier.url]
            }
            carrier.update { $0.arrived = [0..<10] }
            let blocks = (try content.grid.count + 127) / 128
            let outcome = try await fixture.pull(fixture.request([good])) { feed in
                try await PullFixture.wait("ten chunks") { feed.arrivedChunkCount == 10 }
                try await PullFixture.wait("all checksums are known") {
                    Set(good.now.requests.filter { $0.contains("checksums") }).count == blocks
                }
                good.update {
                    $0.isRegistered = false
                    $0.leases = []
                }
                carrier.update { $0.arrived = nil }
                return false
            }
            #expect(outcome.error == nil)
            #expect((outcome.shards == content.shards) == true)
            #expect(outcome.bytesBySource[carrier.url] == 2_000_000)
        }
    }

    /// What has another content digest is not read at all.
    @Test func anotherContentIsSeenBeforeItIsRead() async throws {
        let contents = [try content(), try content()]
        try await FakeSource.with(contents, fixture) { sources in
            let (good, other) = (sources[0], sources[1])
            good.update {
                $0.content = "a"
                $0.isActive = false
            }
            other.update {
                $0.content = "b"
                $0.isActive = false
            }
            let request = try fixture.request(sources, content: "a")
            let outcome = try await fixture.pull(request) { _ in
                try await PullFixture.wait("it is given up") {
                    other.now.begunCount > 0 && other.now.leases.isEmpty
                }
                good.update { $0.isActive = true }
                return false
            }
            // The digests that the fake ones tell are not those of their bytes.
            #expect(outcome.error?.code == .sourceFailed)
            #expect(outcome.error?.message.contains("has the content digest") == true)
            #expect(outcome.bytesBySource[other.url] == 0)
            try await PullFixture.wait("its leases end") { other.now.leases.isEmpty }
            #expect(!other.now.requests.contains { $0.contains("checksums") })
        }
    }

    @Test func aContentThatIsNotTheMetasIsRefused() async throws {
        try await FakeSource.with([try content()], fixture) { sources in
            sources[0].update { $0.content = "b" }
            let outcome = try await fixture.pull(fixture.request(sources, content: "a"))
            #expect(outcome.error?.code == .sourceFailed)
            #expect(
                outcome.error?.message.contains("than the metas say; gather them again") == true)
            #expect(outcome.feed.arrivedChunkCount == 0)
        }
    }

    @Test func aContentThatChangesEndsThePull() async throws {
        let content = try content(4_000_000)
        try await FakeSource.with([content], fixture) { sources in
            var slow = FakeTransferAgent.Fault()
            slow.delaySeconds = 0.5
            try sources[0].set(slow)
            sources[0].update { $0.content = "a" }
            let outcome = try await fixture.pull(fixture.request(sources)) { feed in
                try await PullFixture.wait("a chunk") { feed.arrivedChunkCount > 0 }
                sources[0].update { $0.content = "b" }
                return false
            }
            #expect(outcome.error?.code == .sourceFailed)
            #expect(outcome.error?.message.contains("has changed the bytes") == true)
        }
    }

    /// The source's own digest of the same bytes, known once all are read.
    @Test func theRightContentIsTheEnd() async throws {
        let content = try content()
        try await FakeSource.with([content], fixture) { sources in
            var digest = ContentDigest()
            for (chunk, value) in try content.checksums().enumerated() { digest.add(chunk, value) }
            let text = digest.text
            sources[0].update { $0.content = text }
            let outcome = try await fixture.pull(fixture.request(sources, content: text))
            #expect(outcome.error == nil)
            #expect(outcome.checksums.content == text)
        }
    }

    @Test func aRenewalTellsWhatHasCome() async throws {
        let content = try content(4_000_000)
        try await FakeSource.with([content], fixture) { sources in
            var slow = FakeTransferAgent.Fault()
            slow.delaySeconds = 0.5
            try sources[0].set(slow)
            let outcome = try await fixture.pull(fixture.request(sources)) { _ in
                try await PullFixture.wait("a renewal") { (sources[0].now.received ?? 0) > 0 }
                try sources[0].set(nil)
                return false
            }
            #expect(outcome.error == nil)
        }
    }

    @Test func onlySoManyAreFollowed() async throws {
        let content = try content()
        try await FakeSource.with([content], fixture) { sources in
            sources[0].update {
                $0.isActive = false
                // Nobody listens there.
                $0.readers = (0..<1000).map { "http://127.0.0.2:\($0 + 1)" }
            }
            let outcome = try await fixture.pull(fixture.request(sources)) { _ in
                try await PullFixture.wait("renewals") { sources[0].now.requests.count > 6 }
                sources[0].update { $0.isActive = true }
                return false
            }
            #expect(outcome.error == nil)
            #expect(outcome.bytesBySource.count == 65)
        }
    }
}

struct ContentDigestTests {
    @Test func theOrderDoesNotMatterAndTheBytesDo() throws {
        var generator = SeededGenerator(seed: .random(in: 0 ... .max))
        let values = (0..<300).map { _ in UInt32(truncatingIfNeeded: generator.next()) }
        let grid = try #require(ChunkGrid(shardByteCounts: [3000], chunkByteCount: 10))
        let (forwards, shuffled) = (ChunkChecksums(grid: grid), ChunkChecksums(grid: grid))
        for (chunk, value) in values.enumerated() {
            #expect(forwards.content == nil)
            forwards.note(chunk, value)
        }
        for chunk in values.indices.shuffled(using: &generator) {
            shuffled.note(chunk, values[chunk] &+ 1)
            shuffled.note(chunk, values[chunk])
        }
        let content = try #require(forwards.content)
        #expect(shuffled.content == content)
        shuffled.note(7, values[7] ^ 1)
        #expect(shuffled.content != content)
        // The same values in other places.
        shuffled.note(7, values[8])
        shuffled.note(8, values[7])
        #expect(values[7] == values[8] || shuffled.content != content)
    }
}

struct MemoryShortageTests {
    @Test func aFileWithoutItsPagesOnAFullFileSystem() throws {
        let directory = try TemporaryDirectory(in: "/dev/shm")
        let whole = try PullFixture.location(
            try directory.write([UInt8](repeating: 1, count: 100_000), to: "whole"))
        let sparse = SegmentLocation(
            path: whole.path, inode: whole.inode, fileByteCount: 1_000_000, dataOffset: 0)
        #expect(MemoryShortage.found(in: [whole], free: { _ in 0 }) == nil)
        #expect(MemoryShortage.found(in: [whole, sparse], free: { _ in 1 << 30 }) == nil)
        #expect(MemoryShortage.found(in: [whole, sparse]) == nil)
        let error = MemoryShortage.found(in: [whole, sparse], free: { _ in 4096 })
        #expect(error?.code == .insufficientMemory)
        #expect(error?.message.contains("mount a larger tmpfs") == true)
        #expect(error?.message.contains(whole.path) == true)
    }
}
