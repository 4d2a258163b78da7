import CNative
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
        let socket = try ZeroMQSocket(.reply, context: context, lingerMilliseconds: 1000)
        let monitor = try socket.monitor(
            "inproc://reference-\(id)", events: CInt(CE_ZMQ_EVENT_DISCONNECTED))
        try socket.connect(address)
        var deadline = ContinuousClock.now + handshakeTimeout
        while true {
            let message = try receive(socket, monitor, deadline: deadline, from: address)
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
        try socket.send([frame], to: "the server")
    }

    private func receive(
        _ socket: ZeroMQSocket, _ monitor: ZeroMQSocket, deadline: ContinuousClock.Instant,
        from address: String
    ) throws(WorkerError) -> ServerMessage {
        var poller = ZeroMQPoller([socket, monitor], descriptor: nil, table: context.table)
        while ContinuousClock.now < deadline {
            if let frames = try socket.receive(from: address) {
                return try ServerMessage(frames: frames)
            }
            if try monitor.receive(from: "the monitor") != nil {
                memory.drop()
                throw WorkerError(.workerLost, "the connection to \(address) was lost")
            }
            let left = WorkerLink.milliseconds(ContinuousClock.now.duration(to: deadline))
            try poller.wait(milliseconds: min(left + 1, 1000))
        }
        throw WorkerError(.deadlineExceeded, "no message from \(address) before the deadline")
    }
}
