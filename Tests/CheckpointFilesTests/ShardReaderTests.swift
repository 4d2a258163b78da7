import CheckpointModel
import CheckpointTesting
import Glibc
import Synchronization
import Testing

@testable import CheckpointFiles

struct ShardReaderTests {
    private let directory: TemporaryDirectory

    init() throws { directory = try TemporaryDirectory() }

    /// A file whose data section has `byteCount` random bytes.
    private func file(_ name: String, _ byteCount: Int, seed: UInt64) throws -> (ShardFile, [UInt8])
    {
        var generator = SeededGenerator(seed: seed)
        let data = (0..<byteCount).map { _ in UInt8.random(in: 0...255, using: &generator) }
        let header =
            "{\"\(name)\":{\"dtype\":\"U8\",\"shape\":[\(byteCount)],\"data_offsets\":[0,\(byteCount)]}}"
        let path = try directory.write(
            SafetensorsBuilder.file(header: header, data: data), to: "\(name).safetensors")
        return (try CheckpointSource.open(paths: [path]).shards[0], data)
    }

    @Test(arguments: [0, 1, 4095, 1 << 20, (1 << 20) + 1, (16 << 20) + 3], [1, 3])
    func copiesEveryByte(_ byteCount: Int, _ threadCount: Int) throws {
        let (shard, data) = try file("a", byteCount, seed: UInt64(byteCount))
        let target = try directory.write([], to: "out")
        let reported = Mutex(0)
        try ShardReader(threadCount: threadCount).read(
            [.init(shard: shard, destinationPath: target)],
            progress: { done in reported.withLock { $0 = done } }, isCancelled: { false })
        #expect(try TemporaryDirectory.read("\(directory.path)/out") == data)
        #expect(reported.withLock { $0 } == byteCount)
    }

    @Test func stopsWhenItIsCancelled() throws {
        let (shard, _) = try file("a", 1 << 20, seed: 1)
        let target = try directory.write([], to: "out")
        let error = #expect(throws: FilesError.self) {
            try ShardReader(threadCount: 2).read(
                [.init(shard: shard, destinationPath: target)],
                progress: { _ in }, isCancelled: { true })
        }
        #expect(error?.code == .cancelled)
    }

    @Test func refusesAFileThatHasChanged() throws {
        let (shard, _) = try file("a", 100, seed: 1)
        _ = try file("a", 101, seed: 2)
        let target = try directory.write([], to: "out")
        let error = #expect(throws: FilesError.self) {
            try ShardReader(threadCount: 2).read(
                [.init(shard: shard, destinationPath: target)],
                progress: { _ in }, isCancelled: { false })
        }
        #expect(error?.code == .changed)
    }

    @Test func reportsATargetThatCannotBeWritten() throws {
        let (shard, _) = try file("a", 100, seed: 1)
        let error = #expect(throws: FilesError.self) {
            try ShardReader(threadCount: 1).read(
                [.init(shard: shard, destinationPath: "/dev/full")],
                progress: { _ in }, isCancelled: { false })
        }
        #expect(error?.code == .insufficientMemory)
        #expect(error?.description.contains("No space left") == true)
    }
}
