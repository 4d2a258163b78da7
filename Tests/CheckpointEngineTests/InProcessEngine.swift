import CheckpointModel
import CheckpointTesting
import CheckpointWorker
import Foundation
import Synchronization

/// An engine in this process: an HTTP server on a unix socket, and reference workers on threads.
final class InProcessEngine: Sendable {
    /// What vLLM's `/collective_rpc` takes.
    private struct Call: Decodable {
        let method: String
        let args: [[String: String]]
        let timeout: Int

        var addresses: [String: String]? {
            method == "update_weights_from_ipc" && timeout > 0 ? args.first : nil
        }
    }

    /// What SGLang's `/update_weights_from_ipc` takes.
    private struct SGLangCall: Decodable {
        let zmq_handles: [String: String]
        let flush_cache: Bool
    }

    /// Answers a request instead of the engine; `nil` leaves it to the engine.
    typealias Script = @Sendable (ScriptedHTTPServer.Request) -> ScriptedHTTPServer.Reply?

    private final class Workers: Sendable {
        let context: ZeroMQContext
        let memoryPath: String
        /// How often the workers of an SGLang server run a session within one call.
        let sessions: Int
        /// What the workers held after each session but their last, by rank.
        let earlier = Mutex<[Int: [[UInt8]]]>([:])
        /// Failures of workers, by update.
        let failures = Mutex<[String]>([])

        init(_ context: ZeroMQContext, memoryPath: String, sessions: Int) {
            self.context = context
            self.memoryPath = memoryPath
            self.sessions = sessions
        }
    }

    private let server: ScriptedHTTPServer
    private let workers: Workers

    /// Listens on `DIRECTORY/NAME.sock` and keeps the parameters of rank r in `DIRECTORY/NAME-r`.
    init(
        _ name: String, in directory: TemporaryDirectory, workers count: Int, sessions: Int = 1,
        script: @escaping Script = { _ in nil }
    ) throws {
        let workers = Workers(
            try ZeroMQContext(libraryNames: ZeroMQNames.all),
            memoryPath: "\(directory.path)/\(name)", sessions: sessions)
        self.workers = workers
        server = try ScriptedHTTPServer(path: "\(directory.path)/\(name).sock") { request in
            script(request) ?? Self.answer(request, workers, count)
        }
    }

    var targets: [String] { server.requests.map(\.target) }
    func earlierMemory(rank: Int) -> [[UInt8]] { workers.earlier.withLock { $0[rank] ?? [] } }
    var workerFailures: [String] { workers.failures.withLock { $0 } }
    var socketPath: String { server.path }

    func stop() { server.stop() }

    /// The packed parameters of one rank.
    func memory(rank: Int) throws -> [UInt8] {
        try TemporaryDirectory.read("\(workers.memoryPath)-\(rank)")
    }

    private static func answer(
        _ request: ScriptedHTTPServer.Request, _ workers: Workers, _ count: Int
    ) -> ScriptedHTTPServer.Reply {
        switch request.target {
        case "/collective_rpc":
            reload(
                (try? JSONDecoder().decode(Call.self, from: Data(request.body)))?.addresses,
                workers, count, sessions: 1)
        case "/update_weights_from_ipc":
            reload(
                (try? JSONDecoder().decode(SGLangCall.self, from: Data(request.body)))?
                    .zmq_handles, workers, count, sessions: workers.sessions)
        case "/server_info": .answer(status: 200, body: #"{"tp_size":\#(count),"dp_size":1}"#)
        case "/get_world_size?include_dp=true":
            .answer(status: 200, body: #"{"world_size":\#(count)}"#)
        case "/health", "/reset_prefix_cache": .answer(status: 200, body: "")
        default: .answer(status: 404, body: "no such call")
        }
    }

    private static func reload(
        _ addresses: [String: String]?, _ workers: Workers, _ count: Int, sessions: Int
    ) -> ScriptedHTTPServer.Reply {
        guard let addresses, addresses.count == count else {
            return .answer(status: 400, body: "not the call of an update")
        }
        let group = DispatchGroup()
        let failures = Mutex<[String]>([])
        for rank in 0..<count {
            guard let address = addresses["CPU-\(rank)"] else { continue }
            group.enter()
            let thread = Thread {
                do {
                    for session in 0..<sessions {
                        try run(workers, rank, of: count, address, isLast: session == sessions - 1)
                    }
                } catch {
                    failures.withLock { $0.append((error as? WorkerError)?.message ?? "\(error)") }
                }
                group.leave()
            }
            thread.start()
        }
        group.wait()
        let messages = failures.withLock { $0 }
        workers.failures.withLock { $0 += messages }
        return messages.isEmpty
            ? .answer(status: 200, body: #"{"success":true,"message":""}"#)
            : .answer(status: 500, body: messages.joined(separator: "\n"))
    }

    /// One session of one worker. What it has got in one that is not the last is kept, and taken away.
    private static func run(
        _ workers: Workers, _ rank: Int, of count: Int, _ address: String, isLast: Bool
    ) throws {
        let path = "\(workers.memoryPath)-\(rank)"
        let memory = ReferenceMemory(path: path, rank: rank, worldSize: count)
        try ReferenceWorker(id: .cpu(rank: rank), memory: memory, context: workers.context)
            .run(address: address)
        guard !isLast else { return }
        let held = try TemporaryDirectory.read(path)
        workers.earlier.withLock { $0[rank, default: []].append(held) }
        try memory.fill(0x5a)
    }
}
