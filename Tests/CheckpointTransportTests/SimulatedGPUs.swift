import CSimulatedCUDA
import CheckpointDevice
import CheckpointModel
import CheckpointTransport

/// The simulated driver of this process: two GPUs on shared memory.
enum SimulatedGPUs {
    static func driver() throws -> CudaDriver {
        let table = try unsafe CudaTable(source: "simulation") { name in
            unsafe simulated_cuda_symbol(name)
        }
        return try CudaDriver(table: table)
    }

    static func set() throws -> GPUSet {
        try GPUSet(try driver(), pinThreadCount: 2)
    }
}
