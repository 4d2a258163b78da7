import CheckpointModel
import CheckpointWorker
import Synchronization

/// The engine calls of one update that its client makes itself: the client is told where workers shall
/// connect, and tells how each of its calls ended.
final class ClientCalls: Sendable {
    /// The workers that the calls are for.
    let workers: [DeviceID]
    /// How many calls the client makes.
    let count: Int

    private let reported = Mutex<Set<Int>>([])
    private let bound = AsyncStream.makeStream(of: [String].self)
    private let reports = AsyncStream.makeStream(of: (call: Int, error: String?).self)

    init(workers: [DeviceID], count: Int) {
        self.workers = workers
        self.count = count
    }

    /// Waits for the addresses of the workers; `nil` when the update has ended before there were any.
    /// One task may wait.
    func addresses() async -> [String]? {
        var iterator = bound.stream.makeAsyncIterator()
        return await iterator.next()
    }

    /// Gives the addresses of the workers out, in their order.
    func open(_ addresses: [String]) { bound.continuation.yield(addresses) }

    /// The update is over: nobody waits any longer.
    func close() {
        bound.continuation.finish()
        reports.continuation.finish()
    }

    /// Takes the end of one call; `error` is `nil` for success.
    func report(_ call: Int, error: String?) throws(EngineError) {
        guard (0..<count).contains(call) else {
            throw EngineError(
                .invalidArgument,
                "there is no call \(call): the update was opened for \(count), numbered from 0")
        }
        guard reported.withLock({ $0.insert(call).inserted }) else {
            throw EngineError(.busy, "the end of call \(call) has been reported already")
        }
        reports.continuation.yield((call, error))
    }

    /// Waits until every call has ended well, or for the first that has not. One task may wait.
    func ended() async -> WorkerError? {
        var open = count
        for await (call, error) in reports.stream {
            if let error {
                return WorkerError(
                    .engineFailed, "the client's engine call \(call) has failed: \(error)")
            }
            open -= 1
            if open == 0 { return nil }
        }
        return WorkerError(.cancelled, "the update ended before the client's engine calls")
    }

    /// What stands for the engine of a worker in messages. Each has one of its own: which workers belong
    /// together, and come at the same time, only the client knows.
    static func engine(of worker: Int) -> String { "the client's engine (worker \(worker))" }
}
