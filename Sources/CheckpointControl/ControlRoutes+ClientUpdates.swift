import CheckpointEngine
import Hummingbird

/// Routes for clients that call the engines of an update themselves.
extension ControlRoutes {
    /// Answers when workers can connect. A client that goes away does not stop the update; the deadline
    /// does.
    func openUpdate(_ request: Request, _ context: Context) async throws -> Response {
        try request.refuseQuery()
        let name = try checkpointName(context)
        let body = try OpenUpdateBody(await jsonBody(request))
        let opened = try await engine.openUpdate(
            name, workers: body.workers, calls: body.calls, timeoutSeconds: body.timeoutSeconds,
            alone: body.alone)
        return try .json(
            opened, status: .accepted, headers: [.location: "/v1/updates/\(opened.update)"])
    }

    /// Takes how one call ended, and answers with the update's status.
    func reportCall(_ request: Request, _ context: Context) async throws -> Response {
        try request.refuseQuery()
        let id = try updateID(context)
        let text = context.parameters.get("call") ?? ""
        guard let call = Int(text), String(call) == text else {
            throw ControlError.invalid("the call \"\(text.prefix(80))\" in the path is no number")
        }
        var fields = try await jsonBody(request)
        let error = try fields.optionalString("error", byteCountMax: Self.errorByteCountMax)
        try fields.finish()
        return try .json(try await engine.reportCall(call, of: id, error: error))
    }

    /// A traceback fits.
    private static let errorByteCountMax = 256 << 10
}

/// The body of `POST /v1/checkpoints/{name}/open-update`.
struct OpenUpdateBody {
    private static let deviceByteCountMax = 128

    let workers: [String]
    let calls: Int
    let timeoutSeconds: Double
    /// Whether the other hosts of the daemon's group take no part.
    let alone: Bool

    init(_ body: RequestFields) throws(ControlError) {
        var fields = body
        workers = try fields.strings(
            "workers", countMax: CheckpointEngine.clientWorkerCountMax,
            byteCountMax: Self.deviceByteCountMax)
        calls =
            try fields.optionalCount("calls", max: CheckpointEngine.clientWorkerCountMax) ?? 1
        timeoutSeconds = try fields.seconds(
            "timeout", default: UpdateRequest.timeoutSecondsDefault,
            max: UpdateRequest.timeoutSecondsMax)
        alone = try fields.boolean("alone", default: false)
        try fields.finish()
    }
}
