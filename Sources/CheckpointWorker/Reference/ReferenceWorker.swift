public import CheckpointModel
import Glibc

/// The worker's end of the protocol, for demonstrations, benchmarks and tests: it copies its
/// tensor-parallel slices, as an engine's loader would.
public struct ReferenceWorker {
    private static let creditCount = 2
    private let id: DeviceID
    private let memory: ReferenceMemory
    private let context: ZeroMQContext

    public init(id: DeviceID, memory: ReferenceMemory, context: ZeroMQContext) {
        self.id = id
        self.memory = memory
        self.context = context
    }

    /// Takes one update from the server at `address`. Returns when it is committed; throws when it was
    /// aborted, when the server is lost, or when the deadline has passed.
    public func run(address: String, handshakeTimeout: Duration = .seconds(60))
        throws(WorkerError)
    {
        var connection = try ReferenceConnection(to: address, context: context)
        let socket = connection.socket
        var deadline = ContinuousClock.now + handshakeTimeout
        while true {
            let message = try receive(&connection, deadline: deadline)
            switch message {
            case .hello(let hello):
                deadline = .now + .milliseconds(hello.deadlineMilliseconds)
                try greet(hello, socket)
            case .catalog(let catalog):
                try open(catalog, socket)
            case .bucket(let index, let first, let count):
                let start = ContinuousClock.now
                let byteCount = memory.load(first..<(first + count))
                try answer(
                    .loaded(
                        index: index, byteCount: byteCount,
                        microseconds: WorkerLink.microseconds(start.duration(to: .now))), socket)
            case .release:
                memory.release()
                try answer(.released, socket)
            case .commit:
                try answer(.committed(microseconds: 0), socket)
                return
            case .abort(let reason):
                memory.drop()
                try answer(.aborted, socket)
                throw WorkerError(.cancelled, "the server aborted the update: \(reason)")
            }
        }
    }

    private func greet(_ hello: ServerHello, _ socket: ZeroMQSocket) throws(WorkerError) {
        guard let version = hello.versions.filter({ ServerHello.versions.contains($0) }).max()
        else {
            try answer(
                .error(
                    WorkerFailure(
                        stage: .hello, message: "no common version: \(hello.versions)",
                        traceback: "")), socket)
            return
        }
        try answer(
            .hello(
                WorkerHello(
                    version: version, worker: id.description, pid: Int(getpid()),
                    software: "checkpoint-engine reference worker", credits: Self.creditCount)),
            socket)
    }

    private func open(_ catalog: CatalogMessage, _ socket: ZeroMQSocket) throws(WorkerError) {
        do throws(WorkerError) {
            try memory.open(catalog)
            try answer(.ready, socket)
        } catch {
            try answer(
                .error(
                    WorkerFailure(stage: .catalog, message: error.message, traceback: "")), socket)
        }
    }

    private func answer(_ message: WorkerMessage, _ socket: ZeroMQSocket) throws(WorkerError) {
        let frame = try ZeroMQFrame(message.frame(), table: context.table)
        guard try socket.send([frame], to: "the server") else {
            throw WorkerError(.workerLost, "the server has gone before the \(message.type)")
        }
    }

    /// The next message; lets go of the server's memory when there is none.
    private func receive(
        _ connection: inout ReferenceConnection, deadline: ContinuousClock.Instant
    ) throws(WorkerError) -> ServerMessage {
        do throws(WorkerError) {
            return try ServerMessage(frames: connection.receive(deadline: deadline))
        } catch {
            memory.drop()
            throw error
        }
    }
}
