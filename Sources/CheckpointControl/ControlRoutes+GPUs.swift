import CheckpointEngine
import Hummingbird

/// Routes about the memory of GPUs.
extension ControlRoutes {
    private struct Released: Encodable {
        let heldBytes: Int
        enum CodingKeys: String, CodingKey { case heldBytes = "held_bytes" }
    }

    /// Gives back what is kept on GPUs between updates; GPUs that are in use keep it until their update
    /// has ended.
    func releaseGPUMemory(_ request: Request, _ context: Context) async throws -> Response {
        try request.refuseQuery()
        await engine.releaseGPUMemory()
        return try .json(Released(heldBytes: await engine.statistics().gpuBytes))
    }
}
