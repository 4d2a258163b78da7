import CheckpointFiles
import CheckpointModel
import CheckpointReference
import CheckpointTesting
import CheckpointWorker
import Synchronization
import Testing

/// Shapes of models, and files of random bytes.
struct SyntheticCheckpointTests {
    private let directory: TemporaryDirectory

    init() throws { directory = try TemporaryDirectory() }

    @Test(arguments: [
        (ModelShapes.Model.qwen3Dense, 707, 65_524_246_528),
        (.qwen3Mixture, 18_867, 61_064_245_248), (.deepSeek, 90_427, 673_150_611_808),
    ])
    func shapesAreThoseOfTheModels(_ model: ModelShapes.Model, _ count: Int, _ bytes: Int) {
        let tensors = model.tensors(layerCount: model.layerCount)
        #expect(Set(tensors.map(\.name)).count == tensors.count)
        let total = tensors.reduce(0) { $0 + $1.byteCount }
        #expect(tensors.count == count)
        #expect(total == bytes)
    }

    @Test(arguments: [1, 3])
    func filesAreRightAndFollowFromTheSeed(_ threadCount: Int) throws {
        let tensors =
            (0..<7).map { index in
                ModelShapes.Tensor("model.layers.\(index).weight", .bf16, [101 + index, 20_000])
            } + [
                ModelShapes.Tensor("empty", .f32, [0, 3]),
                ModelShapes.Tensor("scale", .f32, [3, 1]),
            ]
        let reports = Mutex<[Int]>([])
        let written = try SyntheticCheckpoint.write(
            tensors, to: directory.path, seed: 5, threadCount: threadCount,
            fileByteCountMax: 10_000_000
        ) { done, _ in reports.withLock { $0.append(done) } }
        #expect(written.paths.count == 4)
        #expect(reports.withLock { $0.max() } == written.byteCount)
        let source = try CheckpointSource.open(paths: [directory.path])
        #expect(source.catalog.byteCount == written.byteCount)
        #expect(Set(source.catalog.tensors.map(\.name)) == Set(tensors.map(\.name)))

        let first = try TemporaryDirectory.read(written.paths[0])
        let second = try TemporaryDirectory.read(written.paths[1])
        #expect(Set(first.suffix(4096)).count > 200)
        #expect(first.suffix(4096) != second.suffix(4096))
        let again = try TemporaryDirectory()
        let copy = try SyntheticCheckpoint.write(
            tensors, to: again.path, seed: 5, threadCount: 2, fileByteCountMax: 10_000_000)
        #expect(try TemporaryDirectory.read(copy.paths[0]) == first)
        let other = try SyntheticCheckpoint.write(
            tensors, to: again.path, seed: 6, threadCount: 2, fileByteCountMax: 10_000_000)
        #expect(try TemporaryDirectory.read(other.paths[0]) != first)
    }

    @Test func aCancelledWritingEnds() throws {
        let tensors = [ModelShapes.Tensor("a", .f32, [4_000_000])]
        let error = try #require(throws: WorkerError.self) {
            try SyntheticCheckpoint.write(
                tensors, to: directory.path, seed: 1, threadCount: 2, isCancelled: { true })
        }
        #expect(error.code == .cancelled)
    }

    @Test func aDirectoryThatIsNotThereIsNamed() throws {
        let error = try #require(throws: WorkerError.self) {
            try SyntheticCheckpoint.write(
                [ModelShapes.Tensor("a", .f32, [4])], to: "/nonexistent/x", seed: 1, threadCount: 1)
        }
        #expect(error.message.contains("/nonexistent/x/model-00001-of-00001"))
    }
}
