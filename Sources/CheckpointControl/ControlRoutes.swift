import CheckpointEngine
import CheckpointModel
import Hummingbird
import Logging

/// The HTTP API as a router: each route is a call to the engine.
struct ControlRoutes: Sendable {
    typealias Context = CallContext
    typealias Handler = @Sendable (Request, Context) async throws -> Response

    /// What one method of a path does, and who may have it done.
    private struct Route {
        let party: Party
        let handler: Handler

        /// It changes nothing but what belongs to the reader itself.
        static func reading(_ handler: @escaping Handler) -> Route {
            Route(party: .reader, handler: handler)
        }

        static func order(_ handler: @escaping Handler) -> Route {
            Route(party: .administrator, handler: handler)
        }
    }

    let engine: CheckpointEngine
    let configuration: ControlConfiguration
    let logger: Logger
    let connections: Connections
    let waits: WaitBudget

    init(engine: CheckpointEngine, configuration: ControlConfiguration, logger: Logger) {
        self.engine = engine
        self.configuration = configuration
        self.logger = logger
        let limits = ConnectionPlaces.Limits(descriptorCountMax: configuration.descriptorCountMax)
        connections = Connections(limits: limits)
        waits = WaitBudget(countMax: limits.administrators / 2)
    }

    func makeRouter() -> Router<Context> {
        let router = Router(context: Context.self, options: .autoGenerateHeadEndpoints)
        // The outermost comes first: it turns what the others throw into an answer.
        router.add(middleware: ErrorMiddleware(logger: logger, refusals: RefusalLog(logger)))
        router.add(
            middleware: AccessMiddleware(
                access: configuration.access, hostNames: hostNames, connections: connections))
        add("/v1/healthz", [.get: Route(party: .stranger, handler: health)], to: router)
        add("/v1/version", [.get: .reading(version)], to: router)
        add("/metrics", [.get: .reading(metrics)], to: router)
        add("/v1/metas", [.get: .reading(metas), .post: .order(loadMetas)], to: router)
        add("/v1/checkpoints", [.get: .reading(checkpoints)], to: router)
        add(
            "/v1/checkpoints/:name", [.get: .reading(checkpoint), .delete: .order(unregister)],
            to: router)
        add("/v1/checkpoints/:name/files", [.post: .order(register)], to: router)
        add("/v1/checkpoints/:name/gather-metas", [.post: .order(gatherMetas)], to: router)
        add("/v1/checkpoints/:name/update", [.post: .order(startUpdate)], to: router)
        add("/v1/checkpoints/:name/parts", [.post: .order(compose)], to: router)
        add("/v1/checkpoints/:name/open-update", [.post: .order(openUpdate)], to: router)
        add("/v1/checkpoints/:name/pull", [.post: .order(pull)], to: router)
        add("/v1/checkpoints/:name/leases", [.post: .reading(beginLease)], to: router)
        add(
            "/v1/leases/:id", [.post: .reading(renewLease), .delete: .reading(endLease)], to: router
        )
        add("/v1/leases/:id/catalog", [.get: .reading(leaseCatalog)], to: router)
        add("/v1/leases/:id/checksums/:first/:count", [.get: .reading(leaseChecksums)], to: router)
        add("/v1/updates/:id/calls/:call", [.post: .order(reportCall)], to: router)
        add("/v1/updates/:id", [.get: .reading(update), .delete: .order(cancelUpdate)], to: router)
        add("/v1/updates/:id/trace", [.get: .reading(trace)], to: router)
        add("/v1/gpus/release", [.post: .order(releaseGPUMemory)], to: router)
        return router
    }

    /// The names that requests may give to this daemon: they matter where no token tells web pages from
    /// clients.
    private var hostNames: HostNames? {
        guard case .everyone = configuration.access, case .tcp(let host, _) = configuration.address
        else { return nil }
        return HostNames([host] + configuration.hostNames)
    }

    /// Adds the path with its methods, and the refusal of every other method.
    private func add(
        _ path: RouterPath, _ routes: [HTTPRequest.Method: Route], to router: Router<Context>
    ) {
        for (method, route) in routes {
            router.on(path, method: method) { request, context in
                guard context.party >= route.party else {
                    throw ControlError(
                        .forbidden,
                        "the token is one for reading, and \(method.rawValue) "
                            + "\(request.uri.path.prefix(400)) is an order: it needs the token of "
                            + "--token-file")
                }
                return try await route.handler(request, context)
            }
        }
        let allowed = routes.keys.map(\.rawValue).sorted().joined(separator: ", ")
        for method in Self.knownMethods where routes[method] == nil {
            // The router makes the HEAD of every GET.
            if method == .head, routes[.get] != nil { continue }
            router.on(path, method: method) { request, _ -> Response in
                var response = Response.failure(
                    ControlError(
                        .methodNotAllowed,
                        "the path \(request.uri.path) does not take \(method.rawValue); it takes "
                            + allowed))
                response.headers[.allow] = allowed
                return response
            }
        }
    }

    private static let knownMethods: [HTTPRequest.Method] = [
        .get, .head, .post, .put, .patch, .delete, .options, .trace, .connect,
    ]
}
