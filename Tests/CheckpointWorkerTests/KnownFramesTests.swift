import CheckpointModel
import CheckpointTesting
import Glibc
import Testing

@testable import CheckpointWorker

/// The frames for the known worker, against bytes of a writer that CPython's reader was checked
/// with.
struct KnownFramesTests {
    private static let memoryHandle = (0..<64).map(UInt8.init)

    private func hex(_ bytes: some Sequence<UInt8>) -> String {
        bytes.map { byte in (byte < 16 ? "0" : "") + String(byte, radix: 16) }.joined()
    }

    private func written(_ write: (inout PickleWriter) -> Void) -> String {
        var writer = PickleWriter()
        write(&writer)
        return hex(writer.bytes.dropFirst(2))
    }

    private func tensor(_ name: String, _ dtype: DType, _ dimensions: [Int]) throws -> TensorEntry {
        let shape = try #require(Shape(dimensions))
        let byteCount = shape.byteCount(of: dtype) ?? 0
        let range = try #require(ByteRange(offset: 0, byteCount: byteCount))
        return TensorEntry(name: name, dtype: dtype, shape: shape, shard: 0, range: range)
    }

    @Test(arguments: [
        (0, "4b00"), (255, "4bff"), (256, "4d0001"), (65535, "4dffff"), (65536, "4a00000100"),
        (2_147_483_647, "4affffff7f"), (2_147_483_648, "8a050000008000"),
        (1 << 40, "8a06000000000001"), (.max, "8a08ffffffffffffff7f"), (-1, "4affffffff"),
        (-2_147_483_648, "4a00000080"), (-2_147_483_649, "8a05ffffff7fff"),
        (.min, "8a090000000000000080ff"),
    ])
    func integersTakeTheFormOfTheirSize(_ value: Int, _ expected: String) {
        #expect(written { $0.integer(value) } == expected)
    }

    @Test func stringsAreLongFrom256BytesOn() {
        let text = String(repeating: "x", count: 255)
        #expect(written { $0.string(text) } == "8cff" + hex(text.utf8))
        #expect(written { $0.string(text + "x") } == "5800010000" + hex((text + "x").utf8))
        #expect(written { $0.string("ä") } == "8c02c3a4")
    }

    @Test(arguments: [
        ([], "29"), ([7], "4b0785"), ([7, 8], "4b074b0886"), ([7, 8, 9], "4b074b084b0987"),
        ([7, 8, 9, 10], "284b074b084b094b0a74"),
    ])
    func tuplesAreMarkedFromFourValuesOn(_ values: [Int], _ expected: String) {
        #expect(written { $0.tuple(values) } == expected)
    }

    @Test func skippedTextIsLongAtEveryLength() {
        #expect(written { $0.skippedText([]) } == "580000000030")
        #expect(written { $0.skippedText([0x7B, 0x7D]) } == "58020000007b7d30")
    }

    @Test func aHandleWithACounter() {
        let frame = KnownFrames.handle(
            hello: Array(#"{"type":"hello"}"#.utf8), memoryHandle: Self.memoryHandle,
            byteCount: 1 << 32, counter: (name: "/torch_4242_7", slot: 300))
        #expect(
            hex(frame) == """
                800458100000007b2274797065223a2268656c6c6f227d308c20746f7263682e6d756c746970726f\
                63657373696e672e726564756374696f6e738c1372656275696c645f637564615f74656e736f7293\
                288c05746f7263688c0654656e736f72938c05746f7263688c0453697a65938a0500000000018585\
                524b01854b008c0d746f7263682e73746f726167658c0c547970656453746f72616765938c05746f\
                7263688c0575696e7438934b004340000102030405060708090a0b0c0d0e0f101112131415161718\
                191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f8a\
                0500000000014b0089430d2f746f7263685f343234325f374d2c0143400000000000000000000000\
                00000000000000000000000000000000000000000000000000000000000000000000000000000000\
                000000000000000000000000008974862e
                """)
    }

    @Test func aHandleWithoutACounter() {
        let frame = KnownFrames.handle(
            hello: [], memoryHandle: Self.memoryHandle, byteCount: 4 << 20, counter: nil)
        #expect(
            hex(frame) == """
                80045800000000308c20746f7263682e6d756c746970726f63657373696e672e726564756374696f\
                6e738c1372656275696c645f637564615f74656e736f7293288c05746f7263688c0654656e736f72\
                938c05746f7263688c0453697a65934a000040008585524b01854b008c0d746f7263682e73746f72\
                6167658c0c547970656453746f72616765938c05746f7263688c0575696e7438934b004340000102\
                030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a\
                2b2c2d2e2f303132333435363738393a3b3c3d3e3f4a000040004b008943004b0043400000000000\
                00000000000000000000000000000000000000000000000000000000000000000000000000000000\
                000000000000000000000000000000000000008974862e
                """)
    }

    @Test func tensorsNameWhatRepeatsOnce() throws {
        let frame = try KnownFrames.tensors([
            (try tensor("a", .bf16, [2, 3]), 0),
            (try tensor("b.ä", .f32, []), 256),
            (try tensor("c", .bf16, [1, 2, 3, 256]), 1 << 31),
            (try tensor("d", .f4, [70000, 16]), 1 << 40),
        ])
        #expect(
            hex(frame) == """
                80045d287d288c046e616d65948c01618c056474797065948c05746f7263688c0862666c6f617431\
                3693948c057368617065948c05746f7263688c0453697a6593944b024b038685528c066f66667365\
                74944b00757d2868008c04622ec3a468018c05746f7263688c07666c6f6174333293946803680429\
                855268054d0001757d2868008c01636801680268036804284b014b024b034d000174855268058a05\
                0000008000757d2868008c016468018c05746f7263688c10666c6f6174345f65326d31666e5f7832\
                9394680368044a701101004b0886855268058a0600000000000175652e
                """)
        #expect(try hex(KnownFrames.tensors([])) == "80045d28652e")
    }

    @Test(arguments: DType.allCases)
    func onlyTypesThatTorchHasAreWritten(_ dtype: DType) throws {
        let rows = [(tensor: try tensor("layer.weight", dtype, [4, 8]), offset: 0)]
        guard let torchName = dtype.torchName else {
            let error = #expect(throws: WorkerError.self) { try KnownFrames.tensors(rows) }
            #expect(error?.code == .invalidArgument)
            #expect(error?.message.contains("layer.weight has the type \(dtype.rawValue)") == true)
            return
        }
        let name = String(torchName.dropFirst("torch.".count))
        let global = written { $0.global(PickleWriter.Global(module: "torch", name: name)) }
        #expect(try hex(KnownFrames.tensors(rows)).contains(global))
    }

    @Test(arguments: [[], [3], [2, 3]])
    func packedElementsFillTheLastDimension(_ dimensions: [Int]) throws {
        let rows = [(tensor: try tensor("scales", .f4, dimensions), offset: 0)]
        let error = #expect(throws: WorkerError.self) { try KnownFrames.tensors(rows) }
        #expect(error?.code == .invalidArgument)
        #expect(error?.message.contains("scales of type F4 has the shape \(dimensions)") == true)
    }

    @Test func endAndFailure() {
        #expect(hex(KnownFrames.end()) == "80044e2e")
        #expect(
            hex(KnownFrames.failure("update failed: →")) == """
                80048c086275696c74696e738c0c52756e74696d654572726f72938c12757064617465206661696c\
                65643a20e2869285522e
                """)
    }
}

/// The counters that workers which use torch subtract from.
struct ReferenceCounterFileTests {
    private func path(_ file: ReferenceCounterFile) -> String { "/dev/shm" + file.name }

    /// What a worker does on letting go, or a value that none should leave.
    private func write(_ value: Int64, to slot: Int, of file: ReferenceCounterFile) throws {
        // SAFETY: the bridged string lives for the call.
        let descriptor = unsafe open(path(file), O_RDWR)
        try #require(descriptor >= 0)
        defer { close(descriptor) }
        var value = value
        // SAFETY: eight bytes are read from `value`.
        let written = unsafe pwrite(descriptor, &value, 8, off_t(64 + 8 * slot))
        #expect(written == 8)
    }

    @Test func theFileHasTheLayoutOfTorch() throws {
        let file = try ReferenceCounterFile()
        let pattern = /\/checkpoint-engine-counters-(\d+)-(\d+)-\d+/
        #expect(file.name.wholeMatch(of: pattern)?.2 == "\(getpid())")
        var status = stat()
        // SAFETY: the bridged string and `status` live for the call.
        #expect(unsafe stat(path(file), &status) == 0)
        #expect(status.st_mode & 0o777 == 0o600)
        for slot in 0..<3 {
            let export = try file.export()
            #expect(export.name == file.name && export.slot == slot)
        }
        var expected = [UInt8](repeating: 0, count: 80_064)
        for offset in [0, 64, 72, 80] { expected[offset] = 1 }
        #expect(try TemporaryDirectory.read(path(file)) == expected)
    }

    @Test func anExportIsOutstandingUntilTheWorkerCountsDown() throws {
        let file = try ReferenceCounterFile()
        let first = try file.export().slot
        let second = try file.export().slot
        #expect(!file.isReleased(first) && !file.isReleased(second) && file.outstanding == 2)
        try write(0, to: first, of: file)
        #expect(file.isReleased(first) && !file.isReleased(second) && file.outstanding == 1)
        try write(-1, to: second, of: file)
        #expect(file.isReleased(second) && file.outstanding == 0)
    }

    @Test func onlyCountersThatAreZeroAreUsedAgain() throws {
        let file = try ReferenceCounterFile()
        let slots = try (0..<ReferenceCounterFile.slotCount).map { _ in try file.export().slot }
        #expect(slots == Array(0..<ReferenceCounterFile.slotCount))
        #expect(file.outstanding == ReferenceCounterFile.slotCount)
        try write(-1, to: 5000, of: file)
        let error = #expect(throws: WorkerError.self) { try file.export() }
        #expect(error?.code == .callFailed)
        #expect(error?.message.contains(path(file)) == true)
        try write(0, to: 7000, of: file)
        try write(0, to: 12, of: file)
        #expect(try file.export().slot == 12)
        #expect(try file.export().slot == 7000)
        #expect(!file.isReleased(12))
    }

    /// A process in another container may see the folder and not the owner; the lock it sees.
    @Test func aSweepTakesWhatNobodyHolds() throws {
        let owned = try ReferenceCounterFile()
        let left = "/dev/shm/checkpoint-engine-counters-\(getuid())-1-\(getpid())"
        // SAFETY: the bridged string lives for the call.
        let descriptor = unsafe open(left, O_RDWR | O_CREAT | O_EXCL, 0o600)
        try #require(descriptor >= 0)
        close(descriptor)
        ReferenceCounterFile.sweep()
        let names = TemporaryDirectory.names(in: "/dev/shm")
        #expect(names.contains(String(owned.name.dropFirst())))
        #expect(!names.contains(String(left.dropFirst("/dev/shm/".count))))
    }

    @Test func theFileGoesWithItsOwner() throws {
        var file: ReferenceCounterFile? = try ReferenceCounterFile()
        let path = path(try #require(file))
        let name = String(path.dropFirst("/dev/shm/".count))
        #expect(TemporaryDirectory.names(in: "/dev/shm").contains(name))
        file = nil
        #expect(!TemporaryDirectory.names(in: "/dev/shm").contains(name))
    }
}
