import CheckpointModel
import CheckpointPlan
import CheckpointTransport
import CheckpointWorker
import Synchronization

/// The state of one update, written by its task and the link's thread and read by everyone.
final class UpdateRecord: Sendable {
    private struct State {
        var status: UpdateStatus
        var stageStarts: [(UpdateStatus.Stage, ContinuousClock.Instant)] = []
        /// Those of what came before the link, with the start of the handshake as the last.
        var firstStarts: [(UpdateStatus.Stage, ContinuousClock.Instant)] = []
        var isRepeating = false
        var waiters: [Int: CheckedContinuation<UpdateStatus, Never>] = [:]
        var nextWaiter = 0
        var touchesWeights = false
        var hasKnownWorkers = false
        var loads: [BucketLoad] = []
        var spans: [GatherSpan] = []
        var gpus: [GPU] = []
    }

    let id: String
    let start = ContinuousClock.now
    private let state: Mutex<State>

    init(_ status: UpdateStatus) {
        self.id = status.id
        self.state = Mutex(State(status: status, stageStarts: [(.handshake, start)]))
    }

    /// The status now; a running update's clock goes on.
    var status: UpdateStatus {
        state.withLock { state in
            guard state.status.state == .running else { return state.status }
            return Self.timed(state, start: start, end: .now)
        }
    }

    /// What the timeline is made of.
    var measured: (UpdateStatus, [BucketLoad], [GatherSpan], [GPU]) {
        state.withLock { ($0.status, $0.loads, $0.spans, $0.gpus) }
    }

    /// Whether any worker has begun to load.
    var touchesWeights: Bool { state.withLock { $0.touchesWeights } }

    /// Whether a worker speaks the known protocol.
    var hasKnownWorkers: Bool { state.withLock { $0.hasKnownWorkers } }

    /// Keeps the loads of all buckets for the timeline.
    func keep(_ loads: [BucketLoad]) { state.withLock { $0.loads = loads } }

    /// Keeps what was copied when, for the timeline; one GPU for each worker.
    func keep(_ spans: [GatherSpan], _ gpus: [GPU]) {
        state.withLock { state in
            state.spans = spans
            state.gpus = gpus
        }
    }

    /// Notes how the delivery was planned.
    func describe(_ delivery: GatherDelivery) {
        let budget = delivery.plan.plan.budget
        state.withLock { state in
            // Several hosts deliver what they have together.
            state.status.tensors = delivery.plan.tensors.count
            state.status.bytes = delivery.plan.tensors.reduce(0) { $0 + $1.range.byteCount }
            state.status.buckets = delivery.plan.plan.buckets.count
            state.status.ring = UpdateStatus.Ring(
                bytes: budget.byteCount, bucketBytes: budget.bucketByteCount,
                gpus: delivery.gpus.map(\.id.description))
        }
    }

    /// Takes over what the link reports.
    func report(
        _ progress: SessionProgress, touchesWeights: Bool, endpoints: [WorkerEndpoint]
    ) {
        state.withLock { state in
            guard state.status.state == .running else { return }
            state.touchesWeights = state.touchesWeights || touchesWeights
            state.hasKnownWorkers = progress.workers.contains { $0.isKnown }
            let starts = progress.stageStarts.map { (Self.stage($0.stage), $0.at) }
            state.stageStarts =
                state.firstStarts.isEmpty ? starts : state.firstStarts + starts.dropFirst()
            state.status.stage = Self.stage(progress.stage)
            state.status.workers = zip(progress.workers, endpoints).map(Self.worker)
            state.status.loadedBytes = progress.workers.map(\.loadedByteCount).min() ?? 0
        }
    }

    /// Whether workers have come back for everything.
    var isRepeating: Bool { state.withLock { $0.isRepeating } }

    /// Notes that everything is delivered once more.
    func enterRepeat() {
        state.withLock { state in
            state.status.sessions += 1
            if state.isRepeating { return }
            state.isRepeating = true
            state.status.stage = .draft
            state.stageStarts.append((.draft, .now))
        }
    }

    /// Notes what was done to the engines.
    func note(_ control: UpdateStatus.Control) {
        state.withLock { $0.status.control = control }
    }

    /// Notes that the update begins with this stage, instead of the handshake.
    func begin(with stage: UpdateStatus.Stage) {
        state.withLock { state in
            state.status.stage = stage
            state.stageStarts = [(stage, start)]
        }
    }

    /// From here on a failure leaves engines with a mixture of weights.
    func touchWeights() { state.withLock { $0.touchesWeights = true } }

    /// So many bytes have been sent to every worker.
    func sent(_ byteCount: Int) { state.withLock { $0.status.loadedBytes = byteCount } }

    func enter(_ stage: UpdateStatus.Stage) {
        state.withLock { state in
            state.status.stage = stage
            state.stageStarts.append((stage, .now))
            if stage == .handshake { state.firstStarts = state.stageStarts }
        }
    }

    /// Ends the update and wakes whoever waits for it. The first call counts.
    func finish(_ failure: EngineError?) {
        let (waiters, status) = state.withLock { state in
            if state.status.state == .running {
                state.status = Self.timed(state, start: start, end: .now)
                state.status.state = failure == nil ? .succeeded : .failed
                state.status.error = failure.map {
                    UpdateStatus.Failure(
                        code: $0.code.rawValue, message: $0.message, cause: $0.cause)
                }
            }
            defer { state.waiters = [:] }
            return (state.waiters.values, state.status)
        }
        for waiter in waiters { waiter.resume(returning: status) }
    }

    /// Waits for the end; cancelling the task ends the wait with the status of that moment.
    func finished() async -> UpdateStatus {
        let number = state.withLock { state in
            defer { state.nextWaiter += 1 }
            return state.nextWaiter
        }
        return await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let status: UpdateStatus? = state.withLock { state in
                    if state.status.state != .running || Task.isCancelled { return state.status }
                    state.waiters[number] = continuation
                    return nil
                }
                if let status { continuation.resume(returning: status) }
            }
        } onCancel: {
            let waiter = state.withLock { ($0.waiters.removeValue(forKey: number), $0.status) }
            waiter.0?.resume(returning: waiter.1)
        }
    }
}

extension UpdateRecord {
    private static func timed(
        _ state: State, start: ContinuousClock.Instant, end: ContinuousClock.Instant
    ) -> UpdateStatus {
        var status = state.status
        status.seconds = start.duration(to: end).inSeconds
        let loaded = status.workers.reduce(0) { $0 + $1.loadedBytes }
        let ends = state.stageStarts.dropFirst().map(\.1) + [end]
        status.stages = zip(state.stageStarts, ends).map { begin, end in
            UpdateStatus.StageTime(
                stage: begin.0, start: start.duration(to: begin.1).inSeconds,
                seconds: begin.1.duration(to: end).inSeconds,
                bytes: begin.0 == .reload ? loaded : 0)
        }
        return status
    }

    private static func stage(_ stage: SessionStage) -> UpdateStatus.Stage {
        switch stage {
        case .handshake: .handshake
        case .catalog: .catalog
        case .reload: .reload
        case .release: .release
        case .commit: .commit
        }
    }

    private static func worker(_ report: WorkerReport, _ endpoint: WorkerEndpoint)
        -> UpdateStatus.Worker
    {
        UpdateStatus.Worker(
            id: endpoint.id.description, engine: endpoint.engine, pid: report.hello?.pid ?? 0,
            software: report.hello?.software ?? "", loadedBytes: report.loadedByteCount,
            committed: report.isCommitted,
            loadSeconds: (report.loadDuration + report.commitDuration).inSeconds)
    }
}
