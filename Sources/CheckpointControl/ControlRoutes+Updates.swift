import CheckpointEngine
import CheckpointTrace
import CheckpointModel
import Hummingbird

/// Routes that start, watch and cancel updates.
extension ControlRoutes {
    /// Answers when the update has ended, or at once with `"wait": false`. A client that goes away
    /// does not stop the update.
    func startUpdate(_ request: Request, _ context: Context) async throws -> Response {
        try request.refuseQuery()
        let name = try checkpointName(context)
        let body = try UpdateBody(await jsonBody(request))
        for engine in body.request.instances { try configuration.engines.check(engine) }
        let started = try await engine.startUpdate(name, body.request)
        let location: HTTPFields = [.location: "/v1/updates/\(started.id)"]
        guard body.waits else {
            return try .json(started, status: .accepted, headers: location)
        }
        let ended = try await waits.hold { try await engine.finishedUpdate(started.id) }
        if let failure = ended.error {
            throw ControlError(failure, update: ended.id)
        }
        return try .json(ended, headers: location)
    }

    /// Answers at once, or with `?wait=SECONDS` when the update has ended or the time is over.
    func update(_ request: Request, _ context: Context) async throws -> Response {
        let id = try updateID(context)
        guard let seconds = try request.seconds("wait", max: Self.waitSecondsMax) else {
            return try .json(try await engine.update(id))
        }
        return try .json(
            try await waits.hold { try await engine.update(id, waitingSeconds: seconds) })
    }

    /// How long one request may wait for the end of an update.
    private static let waitSecondsMax = 60.0

    /// The timeline of an ended update: a Chrome trace, or a picture with `?format=svg`.
    func trace(_ request: Request, _ context: Context) async throws -> Response {
        let format = try request.choice("format", of: ["json", "svg"])
        let timeline = try await engine.timeline(updateID(context))
        if format == "svg" { return .bytes(timeline.svg(), type: "image/svg+xml") }
        return .bytes(timeline.chromeTrace(), type: "application/json")
    }

    /// Asks the update to end; its status tells when it has.
    func cancelUpdate(_ request: Request, _ context: Context) async throws -> Response {
        let id = try updateID(context)
        let reason = try request.text("reason").map { "cancelled: \($0)" }
        try await engine.cancelUpdate(
            id, reason: reason ?? "cancelled by DELETE /v1/updates/\(id)")
        return try .json(try await engine.update(id), status: .accepted)
    }

    /// The id in the path. It was made by the engine: no other length can be right.
    func updateID(_ context: Context) throws(ControlError) -> String {
        let id = context.parameters.get("id") ?? ""
        guard (1...128).contains(id.utf8.count) else {
            throw .invalid("the update id in the path has \(id.utf8.count) bytes, not 1 to 128")
        }
        return id
    }
}

extension ControlError {
    /// The failure of an ended update.
    init(_ failure: UpdateStatus.Failure, update: String) {
        let code = EngineError.Code(rawValue: failure.code).map(Code.engine) ?? .internalError
        self.init(code, failure.message, cause: failure.cause, update: update)
    }
}
