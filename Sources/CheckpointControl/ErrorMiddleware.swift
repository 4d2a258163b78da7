import CheckpointEngine
import Hummingbird
import Logging
import NIOCore

/// Turns every failure of a route into an answer, and logs each request once.
struct ErrorMiddleware: RouterMiddleware {
    typealias Context = ControlRoutes.Context

    let logger: Logger
    let refusals: RefusalLog

    func handle(
        _ request: Request, context: Context,
        next: (Request, Context) async throws -> Response
    ) async throws -> Response {
        let clock = ContinuousClock()
        let start = clock.now
        var metadata: Logger.Metadata = [
            "method": "\(request.method.rawValue)", "path": "\(request.uri.path)",
        ]
        let response: Response
        var isRefused = false
        do {
            response = try await next(request, context)
        } catch {
            let failure = Self.controlError(of: error, request: request)
            metadata["code"] = "\(failure.codeName)"
            metadata["error"] = "\(failure.message)"
            if case .internalError = failure.code { metadata["cause"] = "\(failure.cause ?? "")" }
            isRefused = failure.code == .unauthorized || failure.code == .forbidden
            response = .failure(failure)
        }
        metadata["status"] = "\(response.status.code)"
        metadata["seconds"] = "\((clock.now - start) / .seconds(1))"
        if isRefused {
            metadata["peer"] = "\(context.channel.remoteAddress.map { "\($0)" } ?? "")"
            refusals.note(metadata)
            return response
        }
        logger.log(
            level: Self.level(request, response.status), "Request answered", metadata: metadata)
        return response
    }

    /// Reading is for debugging, changes are worth a line, and our own failures are errors.
    private static func level(
        _ request: Request, _ status: HTTPResponse.Status
    ) -> Logger.Level {
        if status.code == 500 { return .error }
        if status.code >= 400 { return .notice }
        return request.method == .get || request.method == .head ? .debug : .info
    }

    private static func controlError(of error: any Error, request: Request) -> ControlError {
        if let error = error as? ControlError { return error }
        if let error = error as? EngineError { return ControlError(error) }
        if let error = error as? HTTPError, error.status == .notFound {
            return ControlError(
                .noRoute,
                "there is no \(request.method.rawValue) \(request.uri.path.prefix(400)) in this "
                    + "API; docs/http-api.md lists the routes")
        }
        return ControlError(
            .internalError, "the request failed in a way that nobody expected",
            cause: String(reflecting: error))
    }
}
