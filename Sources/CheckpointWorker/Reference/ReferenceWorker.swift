public import CheckpointModel
import Glibc

/// The worker's end of the protocol, for demonstrations, benchmarks and tests: it copies its
/// tensor-parallel slices, as an engine's loader would.
public struct ReferenceWorker {
    /// What a worker is about to do.
    public enum Step: Hashable, Sendable {
        case hello, catalog, release, commit
        case bucket(Int)
    }

    private static let creditCount = 2
    private let id: DeviceID
    private let memory: any ReferenceTarget
    private let context: ZeroMQContext

    public init(id: DeviceID, memory: any ReferenceTarget, context: ZeroMQContext) {
        self.id = id
        self.memory = memory
        self.context = context
    }

    /// Takes one update from the server at `address`. Returns when it is committed; throws when it was
    /// aborted, when the server is lost, or when the deadline has passed. `onStep` is called before
    /// each step; what it throws is answered as a failure of the step.
    public func run(
        address: String, handshakeTimeout: Duration = .seconds(60),
        onStep: (Step) throws(WorkerError) -> Void = { _ in }
    ) throws(WorkerError) {
        var connection = try ReferenceConnection(to: address, context: context)
        let socket = connection.socket
        var deadline = ContinuousClock.now + handshakeTimeout
        while true {
            let message = try receive(&connection, deadline: deadline)
            if case .hello(let hello) = message {
                deadline = .now + .milliseconds(hello.deadlineMilliseconds)
            }
            let reply: WorkerMessage
            do throws(WorkerError) {
                if let step = Self.step(message) { try onStep(step) }
                reply = try carryOut(message)
            } catch {
                reply = .error(
                    WorkerFailure(
                        stage: Self.stage(message), message: error.message, traceback: ""))
            }
            try answer(reply, socket)
            if case .committed = reply { return }
            if case .abort(let reason) = message {
                throw WorkerError(.cancelled, "the server aborted the update: \(reason)")
            }
        }
    }

    private func carryOut(_ message: ServerMessage) throws(WorkerError) -> WorkerMessage {
        switch message {
        case .hello(let hello):
            return try greeting(hello)
        case .catalog(let catalog):
            guard catalog.memory.kind == memory.source || catalog.tensors.isEmpty else {
                throw Self.wrongMemory(catalog.memory.kind, memory.source)
            }
            try memory.open(catalog)
            return .ready
        case .bucket(let index, let first, let count):
            let start = ContinuousClock.now
            let (end, overflow) = first.addingReportingOverflow(count)
            guard !overflow else {
                throw WorkerError(.protocolViolation, "bucket \(index) has \(count) tensors")
            }
            let byteCount = try memory.load(first..<end)
            return .loaded(
                index: index, byteCount: byteCount,
                microseconds: WorkerLink.microseconds(start.duration(to: .now)))
        case .release:
            memory.release()
            return .released
        case .commit:
            return .committed(microseconds: 0)
        case .abort:
            memory.drop()
            return .aborted
        }
    }

    private func greeting(_ hello: ServerHello) throws(WorkerError) -> WorkerMessage {
        guard let version = hello.versions.filter({ ServerHello.versions.contains($0) }).max()
        else {
            throw WorkerError(.protocolViolation, "no common version: \(hello.versions)")
        }
        guard hello.memory == memory.source else {
            throw Self.wrongMemory(hello.memory, memory.source)
        }
        return .hello(
            WorkerHello(
                version: version, worker: id.description, pid: Int(getpid()),
                software: "checkpoint-engine reference worker", credits: Self.creditCount))
    }

    private static func wrongMemory(_ offered: MemoryKind, _ taken: MemoryKind) -> WorkerError {
        WorkerError(
            .protocolViolation,
            "the server offers \(offered.rawValue) memory, and this worker takes weights from "
                + "\(taken.rawValue) memory")
    }

    private static func step(_ message: ServerMessage) -> Step? {
        switch message {
        case .hello: .hello
        case .catalog: .catalog
        case .bucket(let index, _, _): .bucket(index)
        case .release: .release
        case .commit: .commit
        case .abort: nil
        }
    }

    private static func stage(_ message: ServerMessage) -> WorkerFailure.Stage {
        switch message {
        case .hello: .hello
        case .catalog: .catalog
        case .bucket: .bucket
        case .release: .release
        case .commit, .abort: .commit
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
            var frames = try connection.receive(deadline: deadline)
            if frames.count == 1, let hello = KnownHello.frame(in: frames[0]) { frames = [hello] }
            return try ServerMessage(frames: frames)
        } catch {
            memory.drop()
            throw error
        }
    }
}
