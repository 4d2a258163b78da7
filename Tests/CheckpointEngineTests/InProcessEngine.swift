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
    }

    /// Answers a request instead of the engine; `nil` leaves it to the engine.
    typealias Script = @Sendable (ScriptedHTTPServer.Request) -> ScriptedHTTPServer.Reply?

    private final class Workers: Sendable {
        let context: ZeroMQContext
        let memoryPath: String
        /// Failures of workers, by update.
        let failures = Mutex<[String]>([])

        init(_ context: ZeroMQContext, memoryPath: String) {
            self.context = context
            self.memoryPath = memoryPath
        }
    }

    private let server: ScriptedHTTPServer
    private let workers: Workers

    /// Listens on `DIRECTORY/NAME.sock` and keeps the parameters of rank r in `DIRECTORY/NAME-r`.
    init(
        _ name: String, in directory: TemporaryDirectory, workers count: Int,
        script: @escaping Script = { _ in nil }
    ) throws {
        let workers = Workers(
            try ZeroMQContext(libraryNames: ZeroMQNames.all),
            memoryPath: "\(directory.path)/\(name)")
        self.workers = workers
        server = try ScriptedHTTPServer(path: "\(directory.path)/\(name).sock") { request in
            script(request) ?? Self.answer(request, workers, count)
        }
    }

    var targets: [String] { server.requests.map(\.target) }
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
        case "/collective_rpc": reload(request, workers, count)
        case "/get_world_size?include_dp=true":
            .answer(status: 200, body: #"{"world_size":\#(count)}"#)
        case "/health", "/reset_prefix_cache": .answer(status: 200, body: "")
        default: .answer(status: 404, body: "no such call")
        }
    }

    private static func reload(
        _ request: ScriptedHTTPServer.Request, _ workers: Workers, _ count: Int
    ) -> ScriptedHTTPServer.Reply {
        guard let call = try? JSONDecoder().decode(Call.self, from: Data(request.body)),
            call.method == "update_weights_from_ipc", call.timeout > 0,
            let addresses = call.args.first, addresses.count == count
        else { return .answer(status: 400, body: "not the call of an update") }
        let group = DispatchGroup()
        let failures = Mutex<[String]>([])
        for rank in 0..<count {
            guard let address = addresses["CPU-\(rank)"] else { continue }
            group.enter()
            let thread = Thread {
                let worker = ReferenceWorker(
                    id: .cpu(rank: rank),
                    memory: ReferenceMemory(
                        path: "\(workers.memoryPath)-\(rank)", rank: rank, worldSize: count),
                    context: workers.context)
                do throws(WorkerError) {
                    try worker.run(address: address)
                } catch {
                    failures.withLock { $0.append(error.message) }
                }
                group.leave()
            }
            thread.start()
        }
        group.wait()
        let messages = failures.withLock { $0 }
        workers.failures.withLock { $0 += messages }
        return messages.isEmpty
            ? .answer(status: 200, body: "{}")
            : .answer(status: 500, body: messages.joined(separator: "\n"))
    }
}
