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
        let catalog = Catalog(shards: [.init(name: "m", byteCount: 40)], tensors: tensors)
        #expect(catalog.byteCount == 15)
        #expect(catalog.countByDType == [.bf16: 2, .f4: 1])
        #expect(Catalog(shards: [], tensors: []).countByDType.isEmpty)
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
        #expect(Shape([Int.max / 8])?.byteCount(of: .u8) == Int.max / 8)
        #expect(Shape([1 << 31, 1 << 31])?.byteCount(of: .u8) == nil)
        #expect(Shape([2, 2])?.byteCount(of: .f6e3m2) == 3)
        #expect(Shape([2])?.byteCount(of: .f6e3m2) == nil)
        #expect(Shape([0])?.byteCount(of: .f4) == 0)
        #expect(Shape([])?.byteCount(of: .f4) == nil)
        #expect(ByteRange(offset: Int.max, byteCount: 0)?.end == Int.max)
        #expect(ByteRange(offset: 0, byteCount: Int.max)?.end == Int.max)
    }
}
