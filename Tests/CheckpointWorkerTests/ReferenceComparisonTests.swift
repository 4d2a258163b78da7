import CheckpointModel
import CheckpointTesting
import Glibc
import Testing

@testable import CheckpointWorker

/// A worker's parameters against files, byte for byte.
struct ReferenceComparisonTests {
    private static let dataOffset = 24
    private let directory: TemporaryDirectory
    private let tensors: [TensorEntry]
    private let bytes: [UInt8]

    init() throws {
        directory = try TemporaryDirectory(in: "/dev/shm")
        var offset = 0
        let shapes = [
            ("a.weight", [64, 48]), ("b.o_proj.weight", [90, 204]), ("nothing", [0, 5]),
            ("c.down_proj.weight", [33, 12]), ("scalar", []), ("d.weight", [7, 11]),
        ]
        tensors = try shapes.map { name, dimensions in
            let shape = try #require(Shape(dimensions))
            let byteCount = try #require(shape.byteCount(of: .bf16))
            let range = try #require(ByteRange(offset: offset, byteCount: byteCount))
            offset += byteCount
            return TensorEntry(name: name, dtype: .bf16, shape: shape, shard: 0, range: range)
        }
        var generator = SeededGenerator(seed: 3)
        bytes = (0..<(Self.dataOffset + offset)).map { _ in
            UInt8(truncatingIfNeeded: generator.next())
        }
        try directory.write(bytes, to: "file")
    }

    private func files(_ path: String) throws -> ReferenceFiles {
        let file = try MappedFile(reading: path, inode: nil, byteCount: nil)
        let places = tensors.map {
            (ExactString($0.name), (file: 0, offset: Self.dataOffset + $0.range.offset))
        }
        return ReferenceFiles([file], places: Dictionary(uniqueKeysWithValues: places))
    }

    private func loaded(rank: Int, worldSize: Int) throws -> ReferenceMemory {
        let path = "\(directory.path)/file"
        var status = stat()
        try #require(unsafe stat(path, &status) == 0)
        let memory = ReferenceMemory(
            path: "\(directory.path)/memory-\(rank)", rank: rank, worldSize: worldSize)
        try memory.open(
            CatalogMessage(
                segments: [
                    SegmentLocation(
                        path: path, inode: UInt64(status.st_ino), fileByteCount: bytes.count,
                        dataOffset: Self.dataOffset)
                ], tensors: tensors))
        #expect(try memory.load(0..<tensors.count) == bytes.count - Self.dataOffset)
        memory.release()
        return memory
    }

    @Test(arguments: [1, 2, 3], [1, 4])
    func allRanksHoldWhatTheFilesHold(_ worldSize: Int, _ threadCount: Int) throws {
        for rank in 0..<worldSize {
            let memory = try loaded(rank: rank, worldSize: worldSize)
            let comparison = try ReferenceComparison(
                memory, files("\(directory.path)/file"), threadCount: threadCount,
                chunkByteCount: 1000)
            #expect(comparison.different == [])
            let expected = tensors.reduce(0) {
                $0 + TensorSlice($1, rank: rank, worldSize: worldSize).byteCount
            }
            #expect(comparison.byteCount == expected)
        }
    }

    @Test func everyDifferenceIsNamed() throws {
        let memory = try loaded(rank: 1, worldSize: 2)
        for tensor in tensors where tensor.range.byteCount > 0 {
            let slice = TensorSlice(tensor, rank: 1, worldSize: 2)
            var changed = bytes
            let last =
                slice.offset + (slice.rowCount - 1) * slice.rowStride + slice.rowByteCount - 1
            changed[Self.dataOffset + tensor.range.offset + last] ^= 1
            let path = try directory.write(changed, to: "changed")
            let comparison = try ReferenceComparison(
                memory, files(path), threadCount: 2, chunkByteCount: 4096)
            #expect(comparison.different == [tensor.name])
        }
    }

    @Test func filledMemoryIsDifferentEverywhere() throws {
        let memory = try loaded(rank: 0, worldSize: 1)
        try memory.fill(0x5A)
        let comparison = try ReferenceComparison(
            memory, files("\(directory.path)/file"), threadCount: 2, chunkByteCount: 4096)
        let expected = tensors.filter { $0.range.byteCount > 0 }.map(\.name).sorted()
        #expect(comparison.different == expected)
    }

    @Test func aTensorThatOneSideLacksIsNamed() throws {
        let memory = try loaded(rank: 0, worldSize: 1)
        let known = try files("\(directory.path)/file")
        var places = known.places
        places[ExactString("scalar")] = nil
        places[ExactString("other")] = (0, 0)
        let comparison = try ReferenceComparison(
            memory, ReferenceFiles(known.files, places: places), threadCount: 1)
        #expect(comparison.different == ["other", "scalar"])
    }

    @Test func aBucketOutsideTheCatalogIsRefused() throws {
        let memory = try loaded(rank: 0, worldSize: 1)
        try memory.open(CatalogMessage(segments: [], tensors: []))
        #expect(throws: WorkerError.self) { try memory.load(0..<1) }
    }
}
