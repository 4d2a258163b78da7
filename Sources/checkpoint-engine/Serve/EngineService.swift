import CheckpointEngine
import ServiceLifecycle

/// The engine as a part of the service group: it is there already, and is shut down in order.
struct EngineService: Service {
    let engine: CheckpointEngine

    func run() async throws {
        // Also when the group is cancelled because another service failed.
        try? await gracefulShutdown()
        await engine.shutDown()
    }
}
