import CheckpointControl
import ServiceLifecycle

/// The HTTP server as a part of the service group.
struct ServerService: Service {
    let server: ControlServer

    func run() async throws {
        try await server.run()
    }
}
