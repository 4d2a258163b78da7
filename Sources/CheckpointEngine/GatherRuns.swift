import CheckpointDevice
import CheckpointNative
import CheckpointTransport
import CheckpointWorker
import Synchronization

/// The copies of one update: a first run, and one more each time that workers come back for everything.
final class GatherRuns: Sendable {
    private struct State {
        var runs: [GatherRun]
        var tasks: [Task<DeviceError?, Never>] = []
        var isCancelled = false
        /// Buckets whose bytes are in the host's memory.
        var arrivedCount: Int
    }

    private let job: GatherRun.Job
    private let signal: LinkSignal
    private let state: Mutex<State>

    /// Prepares the first run of `job`; ``start()`` begins it. `arrivedCount` buckets are in the host's memory;
    /// ``arrive(_:)`` tells of more. `delivered` is told of buckets that are on all GPUs.
    init(
        _ job: GatherRun.Job, arrivedCount: Int = .max, signal: LinkSignal,
        delivered: DeliveredBuckets? = nil
    ) throws(DeviceError) {
        self.job = job
        self.signal = signal
        let first = try GatherRun(job, arrivedCount: arrivedCount) { count in
            signal.available(count)
            delivered?.release(count)
        }
        state = Mutex(State(runs: [first], arrivedCount: arrivedCount))
    }

    /// Tells that the bytes of the first `count` buckets are in the host's memory.
    func arrive(_ count: Int) {
        let runs = state.withLock { state in
            state.arrivedCount = max(state.arrivedCount, count)
            return state.runs
        }
        for run in runs { run.arrive(count) }
    }

    /// Begins the first run.
    func start() { state.withLock { start($0.runs[0], &$0) } }

    /// Begins one more run. The one before has ended: its last bucket was loaded.
    func startAgain() throws(DeviceError) {
        let run = try GatherRun(job) { [signal] in signal.available($0) }
        state.withLock { state in
            state.runs.append(run)
            start(run, &state)
        }
    }

    private func start(_ run: GatherRun, _ state: inout State) {
        if state.isCancelled { run.cancel() }
        state.tasks.append(Task { await Self.copies(of: run, signal) })
    }

    /// Tells that all workers are done with the first `count` buckets of the newest run.
    func release(_ count: Int) { state.withLock { $0.runs.last }?.release(count) }

    func cancel() {
        let runs = state.withLock { state in
            state.isCancelled = true
            return state.runs
        }
        for run in runs { run.cancel() }
    }

    /// Waits for the end of all runs; their first failure.
    func outcome() async -> DeviceError? {
        var failure: DeviceError?
        var next = 0
        while let task = state.withLock({ $0.tasks.indices.contains(next) ? $0.tasks[next] : nil })
        {
            let ended = await task.value
            failure = failure ?? ended
            next += 1
        }
        return failure
    }

    /// What all runs have copied.
    func spans() -> [GatherSpan] { state.withLock { $0.runs }.flatMap { $0.spans() } }

    private static func copies(of run: GatherRun, _ signal: LinkSignal) async -> DeviceError? {
        do throws(DeviceError) {
            try await BlockingThread.run("ckpt-gather") { () throws(DeviceError) in try run.run() }
            return nil
        } catch {
            signal.fail(WorkerError(.callFailed, error.message))
            return error
        }
    }
}
