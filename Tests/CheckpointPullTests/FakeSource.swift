import CheckpointModel
import CheckpointNative
import CheckpointPlan
import CheckpointPull
import CheckpointTesting
import CheckpointWorker
import Hummingbird
import Logging
import NIOCore
import Synchronization
import Testing

/// The bytes of a checkpoint, and how they are divided.
struct FakeContent: Sendable {
    var shards: [[UInt8]]
    let tensors: [TensorEntry]
    var chunkByteCount = 4096

    /// Each shard is filled with tensors of up to `tensorByteCount` bytes.
    static func random(
        shardByteCounts: [Int], tensorByteCount: Int = 10_000, seed: UInt64
    ) throws -> FakeContent {
        var generator = SeededGenerator(seed: seed)
        var tensors: [TensorEntry] = []
        for (shard, byteCount) in shardByteCounts.enumerated() {
            for start in stride(from: 0, to: byteCount, by: tensorByteCount) {
                let count = min(tensorByteCount, byteCount - start)
                tensors.append(
                    TensorEntry(
                        name: "tensor-\(shard)-\(start)", dtype: .u8,
                        shape: try #require(Shape([count])), shard: shard,
                        range: try #require(ByteRange(offset: start, byteCount: count))))
            }
        }
        let shards = shardByteCounts.map { RandomBytes.make($0, using: &generator) }
        return FakeContent(shards: shards, tensors: tensors)
    }

    var grid: ChunkGrid {
        get throws {
            try #require(
                ChunkGrid(
                    shardByteCounts: shards.map(\.count), chunkByteCount: chunkByteCount))
        }
    }

    func checksums() throws -> [UInt32] {
        let grid = try grid
        return (0..<grid.count).map { chunk in
            let place = grid.range(of: chunk)
            let bytes = Array(shards[place.shard][place.range.offset..<place.range.end])
            return unsafe Checksum.crc32c(bytes.span.bytes)
        }
    }
}

/// A daemon that is read from, as far as its readers see it: a live HTTP server that says what a test wants, and
/// files that the fake agent reads.
final class FakeSource: Sendable {
    struct State {
        var incarnation = "1"
        var digest = "d1"
        var leases: [String] = []
        var begunCount = 0
        var endedCount = 0
        var isActive = true
        var readers: [String] = []
        /// Runs of places; `nil` for all.
        var arrived: [Range<Int>]?
        /// What it says that its bytes are.
        var content: String?
        var token: String?
        /// Answers everything with this status.
        var status: Int?
        /// Agents that have the shards; others than the first under names of their own.
        var endpointCount = 1
        /// The shards that renewals name; `nil` for all.
        var addressCount: Int?
        var checksums: [UInt32]
        var checksumDelay = Duration.zero
        var isRegistered = true
        /// Calls get no answer.
        var hangs = false
        /// Renewals get a head without the body that it promises.
        var cutsRenewals = false
        /// The `reader` of each lease that was begun.
        var seenReaders: [String?] = []
        /// How many bytes the last renewal said that the reader has.
        var received: Int?
        var requests: [String] = []
    }

    static let endpointCountMax = 3
    /// For sessions of the fake agent, which are names only: below the ports that the system gives.
    private static let names = Mutex(2000)

    let content: FakeContent
    let state: Mutex<State>
    let port: Int
    private let endpointPorts: [Int]
    private let agent: FakeTransferAgent
    private let directory: TemporaryDirectory
    private let server: Task<Void, any Error>

    var url: String { "http://127.0.0.1:\(port)" }

    /// `actual`: the bytes that are read, where they are not those of the checksums.
    init(_ content: FakeContent, agent: FakeTransferAgent, actual: FakeContent? = nil) async throws
    {
        state = Mutex(State(checksums: try content.checksums()))
        self.content = content
        self.agent = agent
        directory = try TemporaryDirectory(in: "/dev/shm")
        let router = Router()
        let (ports, continuation) = AsyncStream.makeStream(of: Int.self)
        let handler = Mutex<(@Sendable (Request) async throws -> Response)?>(nil)
        router.add(
            middleware: Catch { request in
                guard let body = handler.withLock({ $0 }) else {
                    return Response(status: .notFound)
                }
                return try await body(request)
            })
        let application = Application(
            router: router,
            configuration: ApplicationConfiguration(address: .hostname("127.0.0.1", port: 0)),
            onServerRunning: { continuation.yield($0.localAddress?.port ?? 0) },
            logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() })
        server = Task { try await application.run() }
        var iterator = ports.makeAsyncIterator()
        port = try #require(await iterator.next())
        var mappings: [FakeTransferAgent.Mapping] = []
        for (index, bytes) in (actual ?? content).shards.enumerated() {
            mappings.append(
                FakeTransferAgent.Mapping(
                    address: Self.address(index), byteCount: bytes.count,
                    path: try directory.write(bytes, to: "shard-\(index)")))
        }
        endpointPorts =
            [port]
            + Self.names.withLock { next in
                defer { next += Self.endpointCountMax }
                return Array(next..<(next + Self.endpointCountMax - 1))
            }
        for port in endpointPorts { try agent.publish(mappings, port: port) }
        handler.withLock {
            $0 = { [weak self] request in
                guard let self else { return Response(status: .serviceUnavailable) }
                return try await self.answer(request)
            }
        }
    }

    func stop() async {
        server.cancel()
        _ = await server.result
    }

    func set(_ fault: FakeTransferAgent.Fault?, endpoint: Int = 0) throws {
        try agent.set(fault, port: endpointPorts[endpoint])
    }

    /// Changes the bytes that are read from now on.
    func overwrite(_ shard: Int, with bytes: [UInt8]) throws {
        try directory.write(bytes, to: "shard-\(shard)")
    }

    func update(_ body: (inout State) -> Void) { state.withLock { body(&$0) } }
    var now: State { state.withLock { $0 } }

    private static func address(_ shard: Int) -> UInt { UInt(shard + 1) << 40 }

    // MARK: Answers

    private struct Catch: RouterMiddleware {
        typealias Context = BasicRequestContext
        let body: @Sendable (Request) async throws -> Response

        init(_ body: @escaping @Sendable (Request) async throws -> Response) { self.body = body }

        func handle(
            _ request: Request, context: Context,
            next: (Request, Context) async throws -> Response
        ) async throws -> Response {
            try await body(request)
        }
    }

    private static func failure(_ status: Int, _ message: String) -> Response {
        bytes(Array(#"{"error":{"code":"x","message":"\#(message)"}}"#.utf8), status)
    }

    private static func bytes(_ bytes: [UInt8], _ status: Int = 200) -> Response {
        Response(
            status: HTTPResponse.Status(code: status),
            body: ResponseBody(byteBuffer: ByteBuffer(bytes: bytes)))
    }

    private func answer(_ request: Request) async throws -> Response {
        let path = request.uri.path
        let parts = path.split(separator: "/").map(String.init)
        let seen = state.withLock { state in
            state.requests.append("\(request.method) \(path)")
            return state
        }
        if seen.hangs { try await Task.sleep(for: .seconds(600)) }
        if let status = seen.status { return Self.failure(status, "as the test wants it") }
        if let token = seen.token, request.headers[.authorization] != "Bearer \(token)" {
            return Self.failure(401, "the token is wrong")
        }
        if parts.count == 4, parts[1] == "checkpoints", parts[3] == "leases" {
            guard seen.isRegistered else { return Self.failure(404, "no checkpoint of that name") }
            let body = try await request.body.collect(upTo: 1 << 16)
            return begin(String(buffer: body))
        }
        guard parts.count >= 3, parts[1] == "leases", seen.leases.contains(parts[2]) else {
            return Self.failure(404, "there is no lease")
        }
        switch (request.method, parts.count) {
        case (.delete, 3):
            update { state in
                state.leases.removeAll { $0 == parts[2] }
                state.endedCount += 1
            }
            return Self.bytes(Array("{}".utf8))
        case (.post, 3) where seen.cutsRenewals:
            return Response(
                status: .ok,
                body: ResponseBody(contentLength: 10) { writer in
                    try await writer.write(ByteBuffer(string: "{"))
                    try await Task.sleep(for: .seconds(600))
                    try await writer.finish(nil)
                })
        case (.post, 3):
            let body = String(buffer: try await request.body.collect(upTo: 1 << 10))
            update { $0.received = Int(body.filter(\.isNumber)) }
            return Self.bytes(leaseState(seen).encoded())
        case (.get, 4): return Self.bytes(CatalogMessage.body(content.tensors))
        case (.get, 6):
            try await Task.sleep(for: seen.checksumDelay)
            guard let first = Int(parts[4]), let count = Int(parts[5]),
                first + count <= seen.checksums.count
            else { return Self.failure(400, "no such chunks") }
            return Self.bytes(
                seen.checksums[first..<(first + count)].flatMap { value in
                    (0..<4).map { UInt8(truncatingIfNeeded: value >> (8 * UInt32($0))) }
                })
        default: return Self.failure(405, "what")
        }
    }

    private func begin(_ body: String) -> Response {
        let lease = state.withLock { state in
            state.begunCount += 1
            state.leases.append("lease-\(state.begunCount)")
            state.seenReaders.append(
                body.split(separator: "\"").dropFirst(2).dropFirst().first.map(String.init))
            return SourceLease(
                id: "lease-\(state.begunCount)", state: leaseState(state),
                incarnation: state.incarnation, digest: state.digest,
                chunkByteCount: content.chunkByteCount,
                shardByteCounts: content.shards.map(\.count))
        }
        return Self.bytes(lease.encoded())
    }

    private func leaseState(_ state: State) -> LeaseState {
        LeaseState(
            secondsLeft: 10, isActive: state.isActive, readers: state.readers,
            arrived: state.arrived, content: state.content,
            endpoints: endpointPorts.prefix(state.endpointCount).map { port in
                SourceEndpoint(
                    session: "127.0.0.1:\(port)",
                    addresses: (0..<(state.addressCount ?? content.shards.count)).map(
                        Self.address))
            })
    }
}
