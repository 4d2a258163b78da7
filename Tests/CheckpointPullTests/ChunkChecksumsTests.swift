import CheckpointModel
import CheckpointNative
import CheckpointPlan
import CheckpointTesting
import FoundationEssentials
import Glibc
import Synchronization
import Testing

@testable import CheckpointPull

@Suite(.timeLimit(.minutes(1)))
struct ChunkChecksumsTests {
    private static let headByteCount = 24
    private let directory: TemporaryDirectory

    init() throws { directory = try TemporaryDirectory(in: "/dev/shm") }

    /// Files whose data sections begin after a head.
    private func shards(_ content: FakeContent) throws -> [MappedShard] {
        try content.shards.enumerated().map { index, bytes in
            let head = [UInt8](repeating: 7, count: Self.headByteCount)
            let path = try directory.write(head + bytes + [1, 2], to: "\(index)")
            return try MappedShard(
                try PullFixture.location(path, dataOffset: Self.headByteCount),
                byteCount: bytes.count)
        }
    }

    @Test func theyAreThoseOfTheBytes() async throws {
        var content = try FakeContent.random(
            shardByteCounts: [100_000, 0, 1, 4096, 50_001], seed: .random(in: 0 ... .max))
        content.chunkByteCount = 512
        let checksums = ChunkChecksums(grid: try content.grid, shards: try shards(content))
        let expected = try content.checksums()
        let middle = await checksums.values(5..<70, deadline: .now + .seconds(20))
        #expect(middle == Array(expected[5..<70]))
        // Two who ask for all at once.
        async let first = checksums.values(0..<expected.count, deadline: .now + .seconds(20))
        async let second = checksums.values(0..<expected.count, deadline: .now + .seconds(20))
        #expect(await first == expected)
        #expect(await second == expected)
        #expect(checksums.known(3) == expected[3])
        #expect(await checksums.values(2..<2, deadline: .now + .seconds(20)) == [])
    }

    @Test func whatIsNotedIsKnown() async throws {
        let grid = try #require(ChunkGrid(shardByteCounts: [40], chunkByteCount: 10))
        let checksums = ChunkChecksums(grid: grid)
        #expect(checksums.known(0) == nil)
        #expect(await checksums.values(0..<2, deadline: .now + .milliseconds(50)) == nil)
        let waiting = Task { await checksums.values(0..<2, deadline: .now + .seconds(20)) }
        checksums.note(1, 11)
        checksums.note(0, 0)
        #expect(await waiting.value == [0, 11])
        #expect(checksums.known(0) == 0)
        #expect(await checksums.values(1..<3, deadline: .now + .milliseconds(20)) == nil)
    }

    @Test func nobodyWaitsAfterTheEnd() async throws {
        let grid = try #require(ChunkGrid(shardByteCounts: [40], chunkByteCount: 10))
        let checksums = ChunkChecksums(grid: grid)
        let waiting = Task { await checksums.values(0..<2, deadline: .now + .seconds(600)) }
        try await Task.sleep(for: .milliseconds(20))
        checksums.close()
        #expect(await waiting.value == nil)
        let cancelled = Task {
            await ChunkChecksums(grid: grid).values(0..<1, deadline: .now + .seconds(600))
        }
        cancelled.cancel()
        #expect(await cancelled.value == nil)
    }

    @Test func aheadOfAllQuestionsInTimeThatNobodyNeeds() async throws {
        let content = try FakeContent.random(shardByteCounts: [400_000], seed: 5)
        let checksums = ChunkChecksums(grid: try content.grid, shards: try shards(content))
        let isBusy = Mutex(true)
        checksums.computeAhead { isBusy.withLock(\.self) }
        checksums.computeAhead { false }
        try await Task.sleep(for: .milliseconds(100))
        #expect(checksums.known(0) == nil)
        isBusy.withLock { $0 = false }
        let expected = try content.checksums()
        try await PullFixture.wait("all are known") {
            (0..<expected.count).allSatisfy { checksums.known($0) == expected[$0] }
        }
    }

    @Test(arguments: [true, false])
    func aQuestionIsAnsweredAlsoInBusyTimes(_ isAsked: Bool) async throws {
        let content = try FakeContent.random(shardByteCounts: [400_000], seed: 6)
        let checksums = ChunkChecksums(grid: try content.grid, shards: try shards(content))
        checksums.computeAhead { true }
        let expected = try content.checksums()
        if isAsked {
            let all = await checksums.values(
                0..<expected.count, deadline: .now + .seconds(20))
            #expect(all == expected)
        } else {
            // Its thread ends with it.
            checksums.close()
            #expect(checksums.known(0) == nil)
        }
    }

    @Test func rangesOfAShardHaveTheirSums() throws {
        let content = try FakeContent.random(shardByteCounts: [10_000], seed: 3)
        let shard = try shards(content)[0]
        for (offset, count) in [(0, 10_000), (0, 0), (10_000, 0), (1, 4097), (9_999, 1)] {
            let range = try #require(ByteRange(offset: offset, byteCount: count))
            let bytes = Array(content.shards[0][offset..<(offset + count)])
            let expected = unsafe Checksum.crc32c(bytes.span.bytes)
            #expect(shard.checksum(of: range) == expected)
        }
    }

    @Test func filesThatAreNotThoseAreRefused() throws {
        let path = try directory.write([UInt8](repeating: 1, count: 100), to: "a")
        let right = try PullFixture.location(path, dataOffset: 10)
        #expect(throws: Never.self) { try MappedShard(right, byteCount: 90) }
        func refused(
            _ path: String? = nil, inode: UInt64? = nil, fileByteCount: Int = 100,
            dataOffset: Int = 10, byteCount: Int = 90
        ) -> PullError? {
            #expect(throws: PullError.self) {
                try MappedShard(
                    SegmentLocation(
                        path: path ?? right.path, inode: inode ?? right.inode,
                        fileByteCount: fileByteCount, dataOffset: dataOffset),
                    byteCount: byteCount)
            }
        }
        #expect(refused(inode: right.inode + 1)?.message.contains("another file") == true)
        #expect(refused(fileByteCount: 99)?.code == .system)
        #expect(refused(fileByteCount: 101)?.code == .system)
        #expect(refused(byteCount: 91)?.code == .system)
        #expect(refused(byteCount: -1)?.code == .system)
        #expect(refused(dataOffset: -1)?.code == .system)
        #expect(refused(dataOffset: 101, byteCount: 0)?.code == .system)
        #expect(refused(dataOffset: .max, byteCount: .max)?.code == .system)
        #expect(refused(path + "-gone")?.message.contains("cannot map") == true)
        let link = directory.path + "/link"
        try FileManager.default.createSymbolicLink(atPath: link, withDestinationPath: path)
        #expect(refused(link)?.message.contains("cannot map") == true)
        // One that is no file is not waited for.
        let pipe = directory.path + "/pipe"
        try #require(unsafe mkfifo(pipe, 0o600) == 0)
        #expect(refused(pipe)?.message.contains("another file") == true)
        // A file of the same name that was made later.
        try FileManager.default.moveItem(atPath: path, toPath: path + "-old")
        try directory.write([UInt8](repeating: 1, count: 100), to: "a")
        #expect(refused()?.message.contains("register the checkpoint again") == true)
    }

    @Test func anEmptyFileHasNoBytes() throws {
        let path = try directory.write([], to: "empty")
        let shard = try MappedShard(try PullFixture.location(path), byteCount: 0)
        let none = try #require(ByteRange(offset: 0, byteCount: 0))
        #expect(shard.checksum(of: none) == 0)
    }
}
