import CheckpointModel
import CheckpointTesting
import Foundation
import Glibc
import Synchronization

@testable import CheckpointWorker

/// A link over real ZeroMQ whose workers answer as a script tells.
struct ScriptedLink: Sendable {
    enum Reply: Sendable {
        /// The answer of an honest worker.
        case right
        case message(WorkerMessage)
        case frames([[UInt8]])
        /// The socket is closed at once, as when the process is killed.
        case vanish
        /// No answer, but the connection stays until the link has ended.
        case silence
    }

    typealias Script = @Sendable (_ worker: Int, _ message: ServerMessage) -> Reply

    struct Outcome {
        let failure: WorkerError?
        let seconds: Double
        /// Reasons of the aborts that each worker has got.
        let aborts: [Int: String]
        let catalogs: [CatalogMessage]
        let progress: [SessionProgress]
    }

    /// What the workers' threads have seen.
    private final class Notes: Sendable {
        let aborts = Mutex<[Int: String]>([:])
        let catalogs = Mutex<[CatalogMessage]>([])
        let isOver = Atomic(false)
    }

    let context: ZeroMQContext
    let directory: TemporaryDirectory
    let signal: LinkSignal
    var catalog: CatalogMessage
    var deadline = Duration.seconds(20)
    var handshakeGrace: Duration?
    /// The engine of each worker.
    var engines = ["http://one", "http://one"]
    /// The socket that each of the scripted workers connects to; a place can stand twice.
    var places = [0, 1]
    private let buckets = [DeliverySchedule.Bucket(first: 0, count: 1, byteCount: 8)]

    init() throws {
        context = try ZeroMQContext(libraryNames: ZeroMQNames.all)
        directory = try TemporaryDirectory()
        signal = try LinkSignal()
        catalog = CatalogMessage(segments: [], tensors: [])
    }

    /// Runs the link on this thread and the workers on theirs, until all have ended.
    func run(_ script: @escaping Script, onBound: @escaping @Sendable () -> Void = {}) -> Outcome {
        let notes = Notes()
        let group = DispatchGroup()
        let progress = Mutex<[SessionProgress]>([])
        let start = ContinuousClock.now
        var failure: WorkerError?
        do throws(WorkerError) {
            try WorkerLink.run(
                configuration(start), context: context, signal: signal,
                observer: ClosureObserver(
                    onBound: {
                        for place in places { self.start(place, script, notes, group) }
                        onBound()
                    }, onProgress: { step, _ in progress.withLock { $0.append(step) } }))
        } catch {
            failure = error
        }
        notes.isOver.store(true, ordering: .relaxed)
        let seconds = Double(WorkerLink.microseconds(start.duration(to: .now))) / 1e6
        group.wait()
        return Outcome(
            failure: failure, seconds: seconds, aborts: notes.aborts.withLock { $0 },
            catalogs: notes.catalogs.withLock { $0 }, progress: progress.withLock { $0 })
    }

    private func configuration(_ start: ContinuousClock.Instant) -> WorkerLink.Configuration {
        WorkerLink.Configuration(
            update: "scripted", checkpoint: "c",
            endpoints: engines.enumerated().map { place, engine in
                WorkerEndpoint(
                    id: .cpu(rank: place), engine: engine,
                    socketPath: "\(directory.path)/\(place)")
            }, memory: .host(catalog.segments), tensors: catalog.tensors,
            schedule: DeliverySchedule(buckets: buckets),
            deadline: start + deadline, abortGrace: .milliseconds(400),
            answerGrace: .milliseconds(50), stragglerGrace: .seconds(10),
            handshakeGrace: handshakeGrace)
    }
}

// MARK: - Workers

extension ScriptedLink {
    private func start(
        _ place: Int, _ script: @escaping Script, _ notes: Notes, _ group: DispatchGroup
    ) {
        let address = "ipc://\(directory.path)/\(place)"
        // The thread may outlive the test for a moment, so that it does not own the directory.
        let context = context
        group.enter()
        let thread = Thread {
            // A lost connection ends a worker, as it should.
            try? Self.work(place, address, context, script, notes)
            group.leave()
        }
        thread.start()
    }

    private static func work(
        _ place: Int, _ address: String, _ context: ZeroMQContext, _ script: Script, _ notes: Notes
    ) throws(WorkerError) {
        var connection = try ReferenceConnection(to: address, context: context)
        while true {
            let frames = try connection.receive(deadline: .now + .seconds(10))
            let message = try ServerMessage(frames: frames)
            if case .abort(let reason) = message {
                notes.aborts.withLock { $0[place] = reason }
            }
            if case .catalog(let catalog) = message {
                notes.catalogs.withLock { $0.append(catalog) }
            }
            let answer: [[UInt8]]
            var isLast = if case .abort = message { true } else { false }
            switch script(place, message) {
            case .right:
                answer = [right(place, message).frame()]
                if case .commit = message { isLast = true }
            case .message(let message): answer = [message.frame()]
            case .frames(let frames): answer = frames
            case .vanish: return
            case .silence:
                while !notes.isOver.load(ordering: .relaxed) { usleep(1000) }
                return
            }
            _ = try connection.socket.send(
                answer.map { bytes throws(WorkerError) in
                    try ZeroMQFrame(bytes, table: context.table)
                }, to: "the server")
            if isLast { return }
        }
    }

    private static func right(_ place: Int, _ message: ServerMessage) -> WorkerMessage {
        switch message {
        case .hello:
            .hello(
                WorkerHello(
                    version: 1, worker: "CPU-\(place)", pid: 40 + place, software: "s", credits: 2))
        case .catalog: .ready
        case .bucket(let index, _, _): .loaded(index: index, byteCount: 8, microseconds: 1)
        case .release: .released
        case .commit: .committed(microseconds: 1)
        case .abort: .aborted
        }
    }
}

extension ServerMessage {
    /// The name of the message on the wire.
    var type: String {
        switch self {
        case .hello: "hello"
        case .catalog: "catalog"
        case .bucket: "bucket"
        case .release: "release"
        case .commit: "commit"
        case .abort: "abort"
        }
    }
}
