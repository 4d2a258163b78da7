import CheckpointEngine
import Hummingbird

/// Routes that tell about the daemon.
extension ControlRoutes {
    func health(_ request: Request, _ context: Context) async throws -> Response {
        try request.refuseQuery()
        return try .json(["status": "ok"])
    }

    func version(_ request: Request, _ context: Context) async throws -> Response {
        try request.refuseQuery()
        return try .json(["name": "checkpoint-engine", "version": configuration.version])
    }

    func metrics(_ request: Request, _ context: Context) async throws -> Response {
        let statistics = await engine.statistics()
        let text = MetricsText.render(statistics, version: configuration.version)
        return .text(text, type: MetricsText.mediaType)
    }

    private static let metasByteCountMax = 256 << 20

    /// Takes the metas of other hosts.
    func loadMetas(_ request: Request, _ context: Context) async throws -> Response {
        try request.refuseQuery()
        let urls = try await engine.loadMetas(
            try await bodyBytes(request, byteCountMax: Self.metasByteCountMax))
        return try .json(["sources": urls])
    }

    func metas(_ request: Request, _ context: Context) async throws -> Response {
        try request.refuseQuery()
        return try .json(await engine.metas())
    }
}
