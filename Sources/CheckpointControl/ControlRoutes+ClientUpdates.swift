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
