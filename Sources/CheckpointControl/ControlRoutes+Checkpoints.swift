import CheckpointEngine
import CheckpointModel
import Hummingbird

/// Routes that register, describe and forget checkpoints.
extension ControlRoutes {
    private struct CheckpointList: Encodable {
        let checkpoints: [CheckpointSummary]
    }

    private struct Unregistered: Encodable {
        let name: String
        let released: Bool

        enum CodingKeys: String, CodingKey {
            case name
            case released = "released_memory"
        }
    }

    private struct GatheredMetas: Encodable {
        let name: String
        let ranks: Int
        let tensors: Int
        let bytes: Int
    }

    func checkpoints(_ request: Request, _ context: Context) async throws -> Response {
        try request.refuseQuery()
        let summaries = await engine.checkpoints().sorted { $0.name < $1.name }
        return try .json(CheckpointList(checkpoints: summaries))
    }

    func checkpoint(_ request: Request, _ context: Context) async throws -> Response {
        try request.refuseQuery()
        return try .json(try await engine.checkpoint(checkpointName(context)))
    }

    /// Answers when the files have been registered. A client that goes away does not stop it.
    func register(_ request: Request, _ context: Context) async throws -> Response {
        try request.refuseQuery()
        let name = try checkpointName(context)
        let body = try RegisterBody(await jsonBody(request))
        let summary = try await engine.register(
            name, paths: body.files, consumes: body.consumes)
        return try .json(summary)
    }

    /// Makes a checkpoint of others.
    func compose(_ request: Request, _ context: Context) async throws -> Response {
        try request.refuseQuery()
        let name = try checkpointName(context)
        var fields = try await jsonBody(request)
        let texts = try fields.strings(
            "parts", countMax: Self.partCountMax, byteCountMax: CheckpointName.byteCountMax)
        try fields.finish()
        let parts = try texts.map { text throws(ControlError) in
            guard let part = CheckpointName(text) else {
                throw .invalid(
                    "the part \"\(text)\" is no checkpoint's name: expected \(CheckpointName.rule)")
            }
            return part
        }
        return try .json(try await engine.compose(name, of: parts))
    }

    private static let partCountMax = 4096

    func unregister(_ request: Request, _ context: Context) async throws -> Response {
        let name = try checkpointName(context)
        let releases = try request.flag("release_memory")
        try await engine.unregister(name, releasesMemory: releases)
        return try .json(Unregistered(name: name.description, released: releases))
    }

    /// Answers with counts: the metas themselves may be large, `GET /v1/metas` has them.
    func gatherMetas(_ request: Request, _ context: Context) async throws -> Response {
        try request.refuseQuery()
        try await refuseFields(request)
        let name = try checkpointName(context)
        let document = try await engine.gatherMetas(name)
        let summary = try await engine.checkpoint(name)
        return try .json(
            GatheredMetas(
                name: summary.name, ranks: document.ranks.count, tensors: summary.tensors,
                bytes: summary.bytes))
    }

    /// The name in the path.
    func checkpointName(_ context: Context) throws(ControlError) -> CheckpointName {
        let text = context.parameters.get("name") ?? ""
        guard let name = CheckpointName(text) else {
            throw .invalid(
                "the checkpoint name \"\(text.prefix(160))\" is not allowed: expected "
                    + CheckpointName.rule)
        }
        return name
    }
}
