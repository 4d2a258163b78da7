import CSimulatedCUDA
import CheckpointDevice
import CheckpointModel
import CheckpointReference
import CheckpointWorker
import Testing

/// The target on a GPU, as far as one process can test it: a process cannot open its own memory.
/// `tests/simulated` has the rest.
@Suite(.serialized)
struct DeviceReferenceMemoryTests {
    private let driver: CudaDriver

    init() throws {
        let table = try unsafe CudaTable(source: "simulation") { name in
            unsafe simulated_cuda_symbol(name)
        }
        driver = try CudaDriver(table: table)
    }

    @Test func itIsNamedAfterItsGPU() throws {
        let memory = try DeviceReferenceMemory(driver, index: 1, rank: 0, worldSize: 1)
        #expect(memory.id == driver.devices[1].id)
        #expect(memory.source == .cuda)
    }

    @Test func aGPUThatIsNotThereIsNamed() throws {
        let error = try #require(throws: WorkerError.self) {
            try DeviceReferenceMemory(driver, index: 99, rank: 0, worldSize: 1)
        }
        #expect(error.message.contains("GPU 99"))
    }

    @Test func memoryOfTheHostIsRefused() throws {
        let memory = try DeviceReferenceMemory(driver, index: 0, rank: 0, worldSize: 1)
        #expect(throws: WorkerError.self) {
            try memory.open(CatalogMessage(segments: [], tensors: []))
        }
        #expect(throws: WorkerError.self) { try memory.load(0..<1) }
    }

    @Test func aHandleThatOpensNothingIsAnError() throws {
        let memory = try DeviceReferenceMemory(driver, index: 0, rank: 0, worldSize: 1)
        let segment = DeviceSegment(
            handle: [UInt8](repeating: 1, count: 64), byteCount: 1 << 20, dataOffset: 0)
        let error = try #require(throws: WorkerError.self) {
            try memory.open(CatalogMessage(memory: .cuda([segment]), tensors: []))
        }
        #expect(error.message.contains("cuIpcOpenMemHandle_v2"))
    }
}
