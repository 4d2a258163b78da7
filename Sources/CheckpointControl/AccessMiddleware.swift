import Hummingbird

/// Refuses requests that must not reach the engine, by their headers alone: those without a token,
/// and those that a browser sends for a web page.
struct AccessMiddleware: RouterMiddleware {
    typealias Context = ControlRoutes.Context

    let access: ControlAccess
    /// The names that requests may give to this daemon; `nil` where they do not matter.
    let hostNames: HostNames?
    let connections: Connections

    func handle(
        _ request: Request, context: Context,
        next: (Request, Context) async throws -> Response
    ) async throws -> Response {
        try refuseWebPages(request)
        var context = context
        context.party = access.party(of: request.headers[.authorization])
        // Probes cannot carry a token, and learn nothing from the answer. They take no place either: an
        // answer to them is there when all places are taken.
        if request.uri.path != Self.healthPath {
            guard context.party > .stranger else {
                throw ControlError(
                    .unauthorized,
                    "this daemon asks for a token: send the header \"Authorization: Bearer TOKEN\" "
                        + "with the contents of its token file")
            }
            try connections.recognise(context.channel, as: context.party)
        }
        return try await next(request, context)
    }

    /// No client of this API is a web page.
    private func refuseWebPages(_ request: Request) throws(ControlError) {
        // A browser names the page's origin in every request that could change something, so this
        // closes the way in through the user's browser.
        if let origin = request.headers[.origin] {
            throw ControlError(
                .forbidden,
                "requests of web pages are not answered; this one came from \(origin.prefix(200))")
        }
        let host = request.head.authority
        guard let hostNames, !hostNames.allow(host) else { return }
        throw ControlError(
            .forbidden,
            "the request names the host \"\((host ?? "").prefix(200))\", which is none of this "
                + "daemon's: call it by its address or as localhost, name the host in --listen or "
                + "--advertise-url, or let it ask for a token (--token-file)")
    }

    static let healthPath = "/v1/healthz"
}
