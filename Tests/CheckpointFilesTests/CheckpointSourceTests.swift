import CheckpointModel
import CheckpointTesting
import Glibc
import Testing

@testable import CheckpointFiles

struct CheckpointSourceTests {
    @Test(arguments: 0..<60 as Range<UInt64>)
    func readsBackWhatWasWritten(_ seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        let catalog = RandomCatalog.make(
            tensorCount: Int.random(in: 1...60, using: &generator), shardCount: 3,
            using: &generator)
        let directory = try TemporaryDirectory()
        for shard in catalog.shards.indices {
            try directory.write(
                SafetensorsBuilder.file(catalog, shard: shard, using: &generator),
                to: catalog.shards[shard].name)
        }
        let source = try CheckpointSource.open(paths: [directory.path])
        #expect(source.catalog.shards == catalog.shards, "seed \(seed)")
        #expect(source.leftOutCount == 0)
        #expect(Set(source.catalog.tensors) == Set(catalog.tensors), "seed \(seed)")
        #expect(source.catalog.byteCount == catalog.byteCount)
        #expect(source.shards.allSatisfy { !$0.isSharedMemory })
    }

    /// Every byte of a valid header set to something else: an error or a catalog that keeps the invariants.
    @Test(arguments: 0..<300 as Range<UInt64>)
    func mutatedHeadersNeverTrap(_ seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        let catalog = RandomCatalog.make(tensorCount: 5, shardCount: 1, using: &generator)
        var header = Array(SafetensorsBuilder.header(catalog.tensors).utf8)
        for _ in 0..<Int.random(in: 1...4, using: &generator) {
            let place = Int.random(in: header.indices, using: &generator)
            header[place] = UInt8.random(in: 0x20...0x7e, using: &generator)
        }
        let dataByteCount = catalog.shards[0].byteCount
        guard
            let parsed = try? SafetensorsHeader(
                header, dataByteCount: dataByteCount, path: "mutated")
        else { return }
        var end = 0
        for tensor in parsed.tensors {
            #expect(tensor.range.offset == end, "seed \(seed)")
            #expect(tensor.shape.byteCount(of: tensor.dtype) == tensor.range.byteCount)
            end = tensor.range.end
        }
        #expect(end == dataByteCount, "seed \(seed)")
    }

    @Test func emptyTensorsAndEmptyFilesAreLegal() throws {
        let directory = try TemporaryDirectory()
        try directory.write(
            SafetensorsBuilder.file(header: "{}", data: []), to: "model-1-of-2.safetensors")
        try directory.write(
            SafetensorsBuilder.file(
                header: "{\"__metadata__\":{\"format\":\"pt\"},"
                    + "\"e\":{\"dtype\":\"F32\",\"shape\":[0,7],\"data_offsets\":[0,0]},"
                    + "\"s\":{\"dtype\":\"F64\",\"shape\":[],\"data_offsets\":[0,8]}}",
                data: [UInt8](repeating: 1, count: 8)), to: "model-2-of-2.safetensors")
        let source = try CheckpointSource.open(paths: [directory.path])
        #expect(source.catalog.tensors.map(\.name).sorted() == ["e", "s"])
        #expect(source.catalog.byteCount == 8)
        #expect(source.shards[1].metadata == ["format": "pt"])
    }

    /// Names are bytes: two normal forms of one text are two tensors, for whoever loads them too.
    @Test func twoNormalFormsAreTwoTensors() throws {
        let directory = try TemporaryDirectory()
        let names = ["caf\u{e9}", "cafe\u{301}"]
        for (number, name) in names.enumerated() {
            try directory.write(
                Self.small(name: name), to: "model-\(number + 1)-of-2.safetensors")
        }
        let catalog = try CheckpointSource.open(paths: [directory.path]).catalog
        #expect(Set(catalog.tensors.map { Array($0.name.utf8) }).count == 2)
        try directory.write(
            Array(
                #"{"weight_map":{"caf\u00e9":"model-1-of-2.safetensors","cafe\u0301":"model-2-of-2.safetensors"}}"#
                    .utf8), to: "model.safetensors.index.json")
        let indexed = try CheckpointSource.open(paths: [directory.path]).catalog
        #expect(indexed == catalog)
    }

    @Test func whatAnIndexListsElsewhereIsLeftOut() throws {
        let directory = try TemporaryDirectory()
        try directory.write(Self.small(name: "a"), to: "1.safetensors")
        let both =
            "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
            + "\"b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}"
        try directory.write(
            SafetensorsBuilder.file(header: both, data: [7, 8]), to: "2.safetensors")
        try directory.write(
            Array(#"{"weight_map":{"a":"1.safetensors","b":"2.safetensors"}}"#.utf8),
            to: "x.safetensors.index.json")
        let source = try CheckpointSource.open(paths: [directory.path])
        #expect(source.leftOutCount == 1)
        #expect(source.catalog.tensors.map(\.name) == ["a", "b"])
        #expect(source.catalog.tensors.map(\.shard) == [0, 1])
        #expect(source.catalog.tensors.map(\.range.offset) == [0, 1])
    }

    @Test func filesInSharedMemoryAreKnown() throws {
        let directory = try TemporaryDirectory(in: "/dev/shm")
        let path = try directory.write(Self.small(), to: "a.safetensors")
        #expect(try CheckpointSource.open(paths: [path]).shards[0].isSharedMemory)
    }

    @Test func aChangedFileIsNoticed() throws {
        let directory = try TemporaryDirectory()
        let bytes = Self.small()
        let path = try directory.write(bytes, to: "a.safetensors")
        let shard = try CheckpointSource.open(paths: [path]).shards[0]
        try shard.checkUnchanged()
        try directory.write(bytes + [], to: "other")
        try directory.write(
            Self.small(name: "b"), to: "a.safetensors")
        #expect(throws: FilesError.self) { try shard.checkUnchanged() }
    }

    /// Contents of the same length, and the time of modification that the file had before.
    @Test func aFileWhoseTimeWasSetBackIsNoticed() throws {
        let directory = try TemporaryDirectory(in: "/dev/shm")
        let path = try directory.write(Self.small(), to: "a.safetensors")
        let shard = try CheckpointSource.open(paths: [path]).shards[0]
        var status = stat()
        try #require(unsafe stat(path, &status) == 0)
        let descriptor = unsafe open(path, O_WRONLY)
        defer { close(descriptor) }
        let changed = status.st_ctim
        repeat {
            // The kernel's clock for files goes on in steps.
            try #require(unsafe pwrite(descriptor, [9], 1, off_t(shard.byteCount - 1)) == 1)
            try #require(unsafe futimens(descriptor, [status.st_atim, status.st_mtim]) == 0)
            try #require(unsafe stat(path, &status) == 0)
        } while status.st_ctim.tv_sec == changed.tv_sec && status.st_ctim.tv_nsec == changed.tv_nsec
        let error = #expect(throws: FilesError.self) { try shard.checkUnchanged() }
        #expect(error?.code == .changed)
        #expect(error?.description.contains(path) == true)
    }

    /// A file with one tensor of one byte.
    private static func small(name: String = "a") -> [UInt8] {
        SafetensorsBuilder.file(
            header: "{\"\(name)\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}",
            data: [1])
    }

    @Test func aLargeHeaderIsParsedQuickly() throws {
        let count = 150_000
        let range = try (0..<count).map { try #require(ByteRange(offset: $0 * 2, byteCount: 2)) }
        let shape = try #require(Shape([1]))
        let tensors = (0..<count).map { index in
            TensorEntry(
                name: "model.layers.\(index / 2400).mlp.experts.\(index % 800).w\(index)",
                dtype: .bf16, shape: shape, shard: 0, range: range[index])
        }
        let header = Array(SafetensorsBuilder.header(tensors).utf8)
        let start = ContinuousClock.now
        let parsed = try SafetensorsHeader(header, dataByteCount: count * 2, path: "large")
        let seconds = start.duration(to: .now)
        #expect(parsed.tensors.count == count)
        // Without optimisation; the benchmark measures the released program.
        #expect(seconds < .seconds(20))
    }
}

struct ShardIndexTests {
    private let directory: TemporaryDirectory

    init() throws {
        directory = try TemporaryDirectory()
        for name in ["a", "b"] {
            try directory.write(
                SafetensorsBuilder.file(
                    header: "{\"\(name)\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}",
                    data: [1]), to: "\(name).safetensors")
        }
    }

    private func open(_ map: String) throws -> CheckpointSource {
        try directory.write(
            Array("{\"metadata\":{\"total_size\":2},\"weight_map\":{\(map)}}".utf8),
            to: "model.safetensors.index.json")
        return try CheckpointSource.open(paths: [directory.path])
    }

    @Test func readsTheShardsThatItNames() throws {
        let source = try open("\"a\":\"a.safetensors\",\"b\":\"b.safetensors\"")
        #expect(source.catalog.tensors.map(\.name) == ["a", "b"])
        let named = try CheckpointSource.open(
            paths: ["\(directory.path)/model.safetensors.index.json"])
        #expect(named == source)
        // A file that the index does not name is no part of the checkpoint.
        #expect(try open("\"a\":\"a.safetensors\"").catalog.tensors.map(\.name) == ["a"])
    }

    @Test(arguments: [
        ("\"a\":\"a.safetensors\",\"b\":\"c.safetensors\"", FilesError.Code.indexMismatch),
        ("\"a\":\"a.safetensors\",\"x\":\"a.safetensors\"", .indexMismatch),
        ("\"x\":\"a.safetensors\"", .indexMismatch),
        ("\"b\":\"a.safetensors\"", .indexMismatch),
        ("\"a\":\"/\u{301}a.safetensors\"", .malformed),
        ("\"a\":\".\u{301}a.safetensors\"", .malformed),
        ("\"a\":\"../a.safetensors\"", .malformed), ("\"a\":\"/etc/passwd\"", .malformed),
        ("\"a\":\"sub/a.safetensors\"", .malformed), ("\"a\":7", .malformed),
        ("\"a\":\"a.safetensors\",\"a\":\"a.safetensors\"", .malformed),
        ("\"a\":\"a.safetensors\",\"a\":\"b.safetensors\"", .indexMismatch),
        ("\"a\":\"pytorch_model.bin\"", .malformed),
    ])
    func refuses(_ map: String, _ code: FilesError.Code) throws {
        let error = #expect(throws: FilesError.self) { try open(map) }
        #expect(error?.code == code, "\(String(describing: error))")
    }

    @Test func namesBothFilesOfADuplicate() throws {
        try directory.write(
            TemporaryDirectory.read("\(directory.path)/a.safetensors"), to: "c.safetensors")
        let error = #expect(throws: FilesError.self) {
            try CheckpointSource.open(
                paths: ["a", "c"].map { "\(directory.path)/\($0).safetensors" })
        }
        #expect(error?.code == .duplicateTensor)
        #expect(error?.description.contains("a.safetensors") == true)
        #expect(error?.description.contains("c.safetensors") == true)
    }

    @Test func refusesWhatIsNoCheckpoint() throws {
        let empty = try TemporaryDirectory()
        for path in [empty.path, "/nonexistent/model", "/dev/null", "/etc/passwd"] {
            #expect(throws: FilesError.self) { try CheckpointSource.open(paths: [path]) }
        }
        #expect(throws: FilesError.self) { try CheckpointSource.open(paths: []) }
    }
}
