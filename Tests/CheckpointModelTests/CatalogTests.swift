import CheckpointModel
import Testing

struct CatalogTests {
    @Test func countsBytesAndTypes() throws {
        let types: [(DType, Int)] = [(.bf16, 12), (.bf16, 0), (.f4, 3)]
        let tensors = try types.enumerated().map { index, type in
            TensorEntry(
                name: "t\(index)", dtype: type.0, shape: try #require(Shape([type.1 * 8])),
                shard: 0, range: try #require(ByteRange(offset: index * 12, byteCount: type.1)))
        }
        let catalog = try Catalog(shards: [.init(name: "m", byteCount: 40)], tensors: tensors)
        #expect(catalog.byteCount == 15)
        #expect(catalog.countByDType == [.bf16: 2, .f4: 1])
        #expect(try Catalog(shards: [], tensors: []).countByDType.isEmpty)
    }

    @Test func cpuWorkersAreNamedByTheirRank() {
        #expect(DeviceID.cpu(rank: 0).description == "CPU-0")
        #expect(DeviceID.cpu(rank: 17).description == "CPU-17")
        #expect(DeviceID.cpu(rank: 1) != DeviceID.cpu(rank: 2))
    }

    @Test func everyTypeOfTorchHasItsName() {
        let names: [DType: String] = [
            .bool: "bool", .f4: "float4_e2m1fn_x2", .u8: "uint8", .i8: "int8",
            .f8e5m2: "float8_e5m2", .f8e4m3: "float8_e4m3fn", .f8e8m0: "float8_e8m0fnu",
            .f8e4m3fnuz: "float8_e4m3fnuz", .f8e5m2fnuz: "float8_e5m2fnuz", .i16: "int16",
            .u16: "uint16", .f16: "float16", .bf16: "bfloat16", .i32: "int32", .u32: "uint32",
            .f32: "float32", .c64: "complex64", .i64: "int64", .u64: "uint64", .f64: "float64",
        ]
        for dtype in DType.allCases {
            #expect(dtype.torchName == names[dtype].map { "torch.\($0)" }, "\(dtype)")
        }
        // Torch has no six-bit types.
        #expect(Set(DType.allCases).subtracting(names.keys) == [.f6e2m3, .f6e3m2])
    }

    @Test func limitsOfShapesAndRanges() {
        #expect(Shape([Int.max])?.elementCount == Int.max)
        #expect(Shape([1 << 56])?.byteCount(of: .u8) == 1 << 56)
        #expect(Shape([1 << 56 + 1])?.byteCount(of: .u8) == nil)
        #expect(Shape([1 << 31, 1 << 31])?.byteCount(of: .u8) == nil)
        #expect(Shape([2, 2])?.byteCount(of: .f6e3m2) == 3)
        #expect(Shape([2])?.byteCount(of: .f6e3m2) == nil)
        #expect(Shape([0])?.byteCount(of: .f4) == 0)
        #expect(Shape([])?.byteCount(of: .f4) == nil)
        #expect(ByteRange(offset: 1 << 56, byteCount: 0)?.end == 1 << 56)
        #expect(ByteRange(offset: 1 << 55, byteCount: 1 << 55)?.end == 1 << 56)
        #expect(ByteRange(offset: 1 << 56, byteCount: 1) == nil)
        #expect(ByteRange(offset: Int.max, byteCount: Int.max) == nil)
    }

    @Test func countsOfBytesStayCountable() {
        let largest = ByteCount.range.upperBound
        #expect(ByteCount(-1) == nil && ByteCount(largest + 1) == nil)
        #expect(ByteCount(largest)?.adding(.zero)?.value == largest)
        #expect(ByteCount(largest)?.adding(ByteCount(1) ?? .zero) == nil)
        #expect(ByteCount(3)?.multiplied(by: 7)?.value == 21)
        #expect(ByteCount(largest)?.multiplied(by: Int.max) == nil)
        #expect(ByteCount(1)?.multiplied(by: -1) == nil)
        #expect(ByteCount.sum([largest - 5, 5])?.value == largest)
        #expect(ByteCount.sum(Array(repeating: (1 << 60) - 1, count: 9)) == nil)
        #expect(ByteCount.sum([largest, 1]) == nil && ByteCount.sum([5, -1]) == nil)
    }

    @Test(arguments: [
        // Nine of them are more than an `Int` holds.
        ([1 << 60, 1 << 60], [(0, 0, 8)], "shards have more than"),
        ([40], [(1, 0, 8)], "lies outside of its shard 1"),
        ([40], [(-1, 0, 8)], "lies outside of its shard -1"),
        ([40], [(0, 33, 8)], "lies outside of its shard 0"),
        ([1 << 56], [(0, 0, 1 << 56), (0, 0, 1)], "tensors have more than"),
    ])
    func catalogsThatCannotBeAreRefused(
        _ shards: [Int], _ tensors: [(shard: Int, offset: Int, byteCount: Int)], _ why: String
    ) throws {
        let entries = try tensors.enumerated().map { index, tensor in
            TensorEntry(
                name: "t\(index)", dtype: .u8, shape: try #require(Shape([tensor.byteCount])),
                shard: tensor.shard,
                range: try #require(
                    ByteRange(offset: tensor.offset, byteCount: tensor.byteCount)))
        }
        let flaw = #expect(throws: Catalog.Flaw.self) {
            try Catalog(shards: shards.map { .init(name: "m", byteCount: $0) }, tensors: entries)
        }
        #expect(flaw?.description.contains(why) == true)
    }

    @Test func anotherOrderKeepsTheBytes() throws {
        let tensors = try (0..<3).map { index in
            TensorEntry(
                name: "t\(index)", dtype: .u8, shape: try #require(Shape([index])), shard: 0,
                range: try #require(ByteRange(offset: index, byteCount: index)))
        }
        let catalog = try Catalog(shards: [.init(name: "m", byteCount: 4)], tensors: tensors)
        let ordered = catalog.ordered([2, 0, 1])
        #expect(ordered.tensors.map(\.name) == ["t2", "t0", "t1"])
        #expect(ordered.byteCount == 3 && ordered.shards == catalog.shards)
    }
}
