import CheckpointModel
import Testing

struct DTypeTests {
    @Test func widthsAreThoseOfTheFormat() {
        let widths: [String: Int] = [
            "BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U8": 8, "I8": 8, "F8_E5M2": 8,
            "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16,
            "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "C64": 64, "I64": 64,
            "U64": 64, "F64": 64,
        ]
        #expect(DType.allCases.count == widths.count)
        for dtype in DType.allCases { #expect(dtype.bitWidth == widths[dtype.rawValue]) }
    }

    @Test func torchNamesAreDistinct() {
        let names = DType.allCases.compactMap(\.torchName)
        #expect(Set(names).count == names.count)
        #expect(names.allSatisfy { $0.hasPrefix("torch.") })
        #expect(DType.bf16.torchName == "torch.bfloat16")
    }
}

struct ShapeTests {
    @Test func countsElementsAndBytes() throws {
        #expect(Shape([])?.elementCount == 1)
        #expect(Shape([3, 0, 5])?.elementCount == 0)
        #expect(Shape([2, 3])?.byteCount(of: .bf16) == 12)
        #expect(Shape([2, 3])?.byteCount(of: .f4) == 3)
        #expect(Shape([4])?.byteCount(of: .f6e2m3) == 3)
        #expect(Shape([3])?.description == "[3]")
    }

    @Test func refusesWhatDoesNotFit() {
        #expect(Shape([-1]) == nil)
        #expect(Shape([Int.max, 2])?.elementCount == nil)
        #expect(Shape([Int.max])?.byteCount(of: .u8) == nil)
        #expect(Shape([Int.max, 0, Int.max])?.elementCount == 0)
        #expect(Shape([3])?.byteCount(of: .f4) == nil)
    }
}

struct ByteRangeTests {
    @Test func endsDoNotOverflow() {
        #expect(ByteRange(offset: 3, byteCount: 4)?.end == 7)
        #expect(ByteRange(offset: -1, byteCount: 4) == nil)
        #expect(ByteRange(offset: 1, byteCount: -1) == nil)
        #expect(ByteRange(offset: Int.max, byteCount: 1) == nil)
    }
}

struct CheckpointNameTests {
    @Test(arguments: ["a", "qwen3-step_1.0", String(repeating: "x", count: 128)])
    func accepts(_ text: String) {
        #expect(CheckpointName(text)?.description == text)
    }

    @Test(arguments: ["", ".hidden", "a/b", "a b", "ü", "a\n", String(repeating: "x", count: 129)])
    func refuses(_ text: String) {
        #expect(CheckpointName(text) == nil)
    }
}

struct DeviceIDTests {
    @Test func readsWhatItWrites() {
        let gpu = DeviceID.gpu(uuid: (0..<16).map { UInt8($0 * 15) })
        for id in [gpu, .cpu(rank: 0), .cpu(rank: 4095)] {
            #expect(DeviceID(id.description) == id)
        }
        #expect(gpu.isGPU && !DeviceID.cpu(rank: 0).isGPU)
    }

    @Test(arguments: [
        "", "CPU-", "CPU-01", "CPU--1", "CPU-x", "GPU-", "GPU-0", "NPU-0",
        "GPU-000000000000-0000-0000-0000-00000000", "GPU-0000000G-0000-0000-0000-000000000000",
    ])
    func refusesOthers(_ text: String) { #expect(DeviceID(text) == nil) }
}
