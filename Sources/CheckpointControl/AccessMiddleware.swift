import Hummingbird

/// Refuses requests that must not reach the engine: those without the token, and those that a
/// browser sends for a web page.
struct AccessMiddleware: RouterMiddleware {
    typealias Context = ControlRoutes.Context

    let token: BearerToken?

    func handle(
        _ request: Request, context: Context,
        next: (Request, Context) async throws -> Response
    ) async throws -> Response {
        // No client of this API is a web page. A browser names the page's origin in every request
        // that could change something, so this closes the way in through the user's browser.
        if let origin = request.headers[.origin] {
            throw ControlError(
                .forbidden,
                "requests of web pages are not answered; this one came from \(origin.prefix(200))")
        }
        // Probes cannot carry a token, and learn nothing from the answer.
        if let token, request.uri.path != "/v1/healthz",
            !token.isCarried(by: request.headers[.authorization])
        {
            throw ControlError(
                .unauthorized,
                "this daemon asks for a token: send the header \"Authorization: Bearer TOKEN\" "
                    + "with the contents of its token file")
        }
        return try await next(request, context)
    }
}
