import CheckpointEngine
import CheckpointModel
import Hummingbird
import Logging

/// The HTTP API as a router: each route is a call to the engine.
struct ControlRoutes: Sendable {
    typealias Context = BasicRequestContext
    typealias Handler = @Sendable (Request, Context) async throws -> Response

    let engine: CheckpointEngine
    let configuration: ControlConfiguration
    let logger: Logger

    func makeRouter() -> Router<Context> {
        let router = Router(context: Context.self, options: .autoGenerateHeadEndpoints)
        // The outermost comes first: it turns what the others throw into an answer.
        router.add(middleware: ErrorMiddleware(logger: logger))
        router.add(middleware: AccessMiddleware(token: configuration.bearerToken))
        add("/v1/healthz", [.get: health], to: router)
        add("/v1/version", [.get: version], to: router)
        add("/metrics", [.get: metrics], to: router)
        add("/v1/metas", [.get: metas, .post: loadMetas], to: router)
        add("/v1/checkpoints", [.get: checkpoints], to: router)
        add("/v1/checkpoints/:name", [.get: checkpoint, .delete: unregister], to: router)
        add("/v1/checkpoints/:name/files", [.post: register], to: router)
        add("/v1/checkpoints/:name/gather-metas", [.post: gatherMetas], to: router)
        add("/v1/checkpoints/:name/update", [.post: startUpdate], to: router)
        add("/v1/checkpoints/:name/parts", [.post: compose], to: router)
        add("/v1/checkpoints/:name/open-update", [.post: openUpdate], to: router)
        add("/v1/checkpoints/:name/pull", [.post: pull], to: router)
        add("/v1/checkpoints/:name/leases", [.post: beginLease], to: router)
        add("/v1/leases/:id", [.post: renewLease, .delete: endLease], to: router)
        add("/v1/leases/:id/catalog", [.get: leaseCatalog], to: router)
        add("/v1/leases/:id/checksums/:first/:count", [.get: leaseChecksums], to: router)
        add("/v1/updates/:id/calls/:call", [.post: reportCall], to: router)
        add("/v1/updates/:id", [.get: update, .delete: cancelUpdate], to: router)
        add("/v1/updates/:id/trace", [.get: trace], to: router)
        add("/v1/gpus/release", [.post: releaseGPUMemory], to: router)
        return router
    }

    /// Adds the route, and the refusal of every other method for its path.
    private func add(
        _ path: RouterPath, _ handlers: [HTTPRequest.Method: Handler], to router: Router<Context>
    ) {
        for (method, handler) in handlers {
            router.on(path, method: method) { request, context in
                try await handler(request, context)
            }
        }
        let allowed = handlers.keys.map(\.rawValue).sorted().joined(separator: ", ")
        for method in Self.knownMethods where handlers[method] == nil {
            // The router makes the HEAD of every GET.
            if method == .head, handlers[.get] != nil { continue }
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
