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
    private func shards(_ content: FakeContent) throws -> [StoredShard] {
        try content.shards.enumerated().map { index, bytes in
            let head = [UInt8](repeating: 7, count: Self.headByteCount)
            let path = try directory.write(head + bytes + [1, 2], to: "\(index)")
            return try StoredShard(
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
        let middle = try await checksums.values(5..<70, deadline: .now + .seconds(20))
        #expect(middle == Array(expected[5..<70]))
        // Two who ask for all at once.
        async let first = checksums.values(0..<expected.count, deadline: .now + .seconds(20))
        async let second = checksums.values(0..<expected.count, deadline: .now + .seconds(20))
        #expect(try await first == expected)
        #expect(try await second == expected)
        #expect(checksums.known(3) == expected[3])
        #expect(try await checksums.values(2..<2, deadline: .now + .seconds(20)) == [])
    }

    @Test func whatIsNotedIsKnown() async throws {
        let grid = try #require(ChunkGrid(shardByteCounts: [40], chunkByteCount: 10))
        let checksums = ChunkChecksums(grid: grid)
        #expect(checksums.known(0) == nil)
        #expect(try await checksums.values(0..<2, deadline: .now + .milliseconds(50)) == nil)
        let waiting = Task { try await checksums.values(0..<2, deadline: .now + .seconds(20)) }
        checksums.note(1, 11)
        checksums.note(0, 0)
        #expect(try await waiting.value == [0, 11])
        #expect(checksums.known(0) == 0)
        #expect(try await checksums.values(1..<3, deadline: .now + .milliseconds(20)) == nil)
    }

    @Test func nobodyWaitsAfterTheEnd() async throws {
        let grid = try #require(ChunkGrid(shardByteCounts: [40], chunkByteCount: 10))
        let checksums = ChunkChecksums(grid: grid)
        let waiting = Task { try await checksums.values(0..<2, deadline: .now + .seconds(600)) }
        try await Task.sleep(for: .milliseconds(20))
        checksums.close()
        #expect(try await waiting.value == nil)
        let cancelled = Task {
            try await ChunkChecksums(grid: grid).values(0..<1, deadline: .now + .seconds(600))
        }
        cancelled.cancel()
        #expect(try await cancelled.value == nil)
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
            let all = try await checksums.values(
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
            var buffer = [UInt8](repeating: 0, count: 100)
            #expect(
                try shard.checksums(of: [range, range], through: &buffer) == [expected, expected])
        }
    }

    @Test func filesThatAreNotThoseAreRefused() throws {
        let path = try directory.write([UInt8](repeating: 1, count: 100), to: "a")
        let right = try PullFixture.location(path, dataOffset: 10)
        #expect(throws: Never.self) { try StoredShard(right, byteCount: 90) }
        func refused(
            _ path: String? = nil, inode: UInt64? = nil, fileByteCount: Int = 100,
            dataOffset: Int = 10, byteCount: Int = 90
        ) -> PullError? {
            #expect(throws: PullError.self) {
                try StoredShard(
                    SegmentLocation(
                        path: path ?? right.path, inode: inode ?? right.inode,
                        fileByteCount: fileByteCount, dataOffset: dataOffset),
                    byteCount: byteCount)
            }
        }
        #expect(refused(inode: right.inode + 1)?.code == .changed)
        #expect(refused(fileByteCount: 99)?.code == .changed)
        #expect(refused(fileByteCount: 101)?.code == .changed)
        #expect(refused(byteCount: 91)?.code == .changed)
        #expect(refused(byteCount: -1)?.code == .changed)
        #expect(refused(dataOffset: -1)?.code == .changed)
        #expect(refused(dataOffset: 101, byteCount: 0)?.code == .changed)
        #expect(refused(dataOffset: .max, byteCount: .max)?.code == .changed)
        #expect(refused(path + "-gone")?.message.contains("cannot read") == true)
        let link = directory.path + "/link"
        try FileManager.default.createSymbolicLink(atPath: link, withDestinationPath: path)
        #expect(refused(link)?.message.contains("cannot read") == true)
        // One that is no file is not waited for.
        let pipe = directory.path + "/pipe"
        try #require(unsafe mkfifo(pipe, 0o600) == 0)
        #expect(refused(pipe)?.code == .changed)
        // A file of the same name that was made later.
        try FileManager.default.moveItem(atPath: path, toPath: path + "-old")
        try directory.write([UInt8](repeating: 1, count: 100), to: "a")
        #expect(refused()?.message.contains("register the checkpoint again") == true)
    }

    /// Its owner writes the next version over it: nothing of this process ends by that.
    @Test(arguments: [0, 60_000])
    func aFileThatBecomesShorterIsTold(_ byteCount: Int) async throws {
        let content = try FakeContent.random(shardByteCounts: [100_000, 50_000], seed: 7)
        let checksums = ChunkChecksums(grid: try content.grid, shards: try shards(content))
        let path = "\(directory.path)/0"
        try #require(unsafe truncate(path, byteCount) == 0)
        let count = try content.grid.count
        for _ in 0..<2 {
            let error = await #expect(throws: PullError.self) {
                try await checksums.values(0..<count, deadline: .now + .seconds(20))
            }
            #expect(error?.code == .changed)
            #expect(error?.message.contains(path) == true)
            #expect(error?.message.contains("register the checkpoint again") == true)
        }
    }

    /// The file is opened before it becomes shorter.
    @Test func aReadThatEndsEarlyIsTold() throws {
        let content = try FakeContent.random(shardByteCounts: [4096], seed: 8)
        let path = try directory.write(content.shards[0], to: "short")
        let location = try PullFixture.location(path)
        let file = try OpenedFile(path, inode: location.inode, byteCount: 4096)
        try #require(unsafe truncate(path, 1000) == 0)
        var buffer = [UInt8](repeating: 0, count: 4096)
        #expect(throws: FileFailure.changed) {
            try file.read(at: 0, count: 4096, into: &buffer)
        }
        try file.read(at: 0, count: 1000, into: &buffer)
        #expect(Array(buffer[..<1000]) == Array(content.shards[0][..<1000]))
    }

    @Test func anEmptyFileHasNoBytes() throws {
        let path = try directory.write([], to: "empty")
        let shard = try StoredShard(try PullFixture.location(path), byteCount: 0)
        let none = try #require(ByteRange(offset: 0, byteCount: 0))
        var buffer = [UInt8](repeating: 0, count: 1)
        #expect(try shard.checksums(of: [none], through: &buffer) == [0])
    }
}
