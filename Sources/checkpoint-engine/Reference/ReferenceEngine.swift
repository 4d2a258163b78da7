import CheckpointJSON
import Hummingbird
import Logging
import ServiceLifecycle

/// A small engine for demonstrations and benchmarks: the HTTP calls of vLLM that an update makes, and
/// tensor-parallel workers as processes that copy their slices.
struct ReferenceEngine {
    private static let bodyByteCountMax = 1 << 20
    private static let shutdownDurationMax = Duration.seconds(5)
    let workers: [ReferenceWorkerProcess]

    init(
        workerCount: Int, memoryPrefix: String, device: ReferenceDevice = .host,
        zeroMQLibraryNames: [String]
    ) {
        workers = (0..<workerCount).map { rank in
            ReferenceWorkerProcess(
                rank: rank, worldSize: workerCount, memoryPath: "\(memoryPrefix)-\(rank)",
                device: device, zeroMQLibraryNames: zeroMQLibraryNames)
        }
    }

    /// Serves until the task is cancelled or the service group shuts down.
    func run(address: BindAddress, logger: Logger) async throws {
        try await withThrowingTaskGroup(of: Void.self) { group in
            for worker in workers {
                group.addTask { try await worker.run() }
            }
            group.addTask { try await serve(address, logger) }
            // The server ends first when asked to; a worker that ends by itself leaves it serving.
            defer { for worker in workers { worker.stop() } }
            for _ in workers { try await group.next() }
        }
    }

    private func serve(_ address: BindAddress, _ logger: Logger) async throws {
        let application = Application(
            router: router(), configuration: ApplicationConfiguration(address: address),
            logger: logger)
        defer { for worker in workers { worker.stop() } }
        var configuration = ServiceGroupConfiguration(services: [application], logger: logger)
        configuration.maximumGracefulShutdownDuration = Self.shutdownDurationMax
        let group = ServiceGroup(configuration: configuration)
        // Shielded from cancellation: a server that is cancelled while a connection opens traps.
        let serving = Task { try await group.run() }
        try await withTaskCancellationHandler {
            try await serving.value
        } onCancel: {
            Task { await group.triggerGracefulShutdown() }
        }
    }

    private func router() -> Router<BasicRequestContext> {
        let router = Router()
        router.get("/health") { _, _ in HTTPResponse.Status.ok }
        router.get("/get_world_size") { _, _ in
            Self.json(.ok, [("world_size", .integer(workers.count))])
        }
        router.post("/reset_prefix_cache") { _, _ in Self.json(.ok, [("success", .bool(true))]) }
        router.post("/collective_rpc") { request, _ in
            let body = try await request.body.collect(upTo: Self.bodyByteCountMax)
            return try await update(Array(body.readableBytesView))
        }
        router.post("/memcpy/:bytes") { _, context in
            let byteCount = try context.parameters.require("bytes", as: Int.self)
            return await answer { try await $0.ask("memcpy \(byteCount)") }
        }
        router.post("/workers") { request, _ in
            let line = try await Self.line(request)
            return await answer { try await $0.ask(line) }
        }
        router.post("/workers/:rank") { request, context in
            let rank = try context.parameters.require("rank", as: Int.self)
            let line = try await Self.line(request)
            return await answer(only: rank) { try await $0.ask(line) }
        }
        return router
    }

    /// A line for workers, as ``ReferenceOrders`` lists them.
    private static func line(_ request: Request) async throws -> String {
        let body = try await request.body.collect(upTo: bodyByteCountMax)
        let text = String(decoding: body.readableBytesView, as: UTF8.self)
        guard !text.contains("\n") else { throw HTTPError(.badRequest) }
        return text
    }

    private func update(_ body: [UInt8]) async throws -> Response {
        let limits = JSONLimits(
            byteCountMax: Self.bodyByteCountMax, depthMax: 8,
            stringByteCountMax: Self.bodyByteCountMax)
        guard case .object(let call) = try JSONValue.parse(body, limits: limits),
            case .array(let arguments)? = call["args"], case .object(let map)? = arguments.first
        else {
            return Self.json(.badRequest, [("error", .string("the call has no map of addresses"))])
        }
        // A worker without an address would fail after the others have committed.
        guard map.keys.count >= workers.count else {
            let text = "the map has \(map.keys.count) addresses for \(workers.count) workers"
            return Self.json(.internalServerError, [("error", .string(text))])
        }
        return await answer { worker in
            let id = try await worker.ask("id")
            guard case .string(let address)? = map[id] else {
                throw ReferenceWorkerProcess.Failure(
                    description: "worker \(worker.rank): the map has no address for \(id)")
            }
            return try await worker.ask("update \(address)")
        }
    }

    /// Asks all workers at once, or one: 200 with their answers, or 500 with the first failure.
    private func answer(
        only rank: Int? = nil,
        _ ask: @escaping @Sendable (ReferenceWorkerProcess) async throws -> String
    ) async -> Response {
        do {
            let results = try await withThrowingTaskGroup(of: (Int, String).self) { group in
                for worker in workers where rank == nil || worker.rank == rank {
                    group.addTask { (worker.rank, try await ask(worker)) }
                }
                return try await group.reduce(into: [:]) { $0[$1.0] = $1.1 }
            }
            let values = results.sorted { $0.key < $1.key }.map { JSONValue.string($0.value) }
            return Self.json(.ok, [("results", .array(values))])
        } catch {
            return Self.json(.internalServerError, [("error", .string("\(error)"))])
        }
    }

    private static func json(_ status: HTTPResponse.Status, _ fields: [(String, JSONValue)])
        -> Response
    {
        Response(
            status: status, headers: [.contentType: "application/json"],
            body: ResponseBody(
                byteBuffer: ByteBuffer(bytes: JSONValue.object(JSONObject(fields)).encoded())))
    }
}
