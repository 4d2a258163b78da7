import CheckpointDevice
import CheckpointFiles
import CheckpointWorker
import Synchronization

/// What an update's link tells: to its record, and to the copies that wait for room.
final class LinkFollower: WorkerLinkObserver {
    /// Before these stages the files that are used in place are looked at.
    static let checks: Set<SessionStage> = [.release, .commit]

    private let record: UpdateRecord
    private let endpoints: [WorkerEndpoint]
    private let registered: RegisteredCheckpoint
    private let gather: RunningGather?
    private let update: HostUpdate?
    private let delivered: DeliveredBuckets?
    private let signal: LinkSignal
    private let bound: AsyncStream<Bool>.Continuation
    /// Where the session has waited.
    private let passed = Mutex<Set<SessionStage>>([])

    init(
        record: UpdateRecord, endpoints: [WorkerEndpoint], registered: RegisteredCheckpoint,
        gather: RunningGather?, update: HostUpdate?, delivered: DeliveredBuckets?,
        signal: LinkSignal, bound: AsyncStream<Bool>.Continuation
    ) {
        self.record = record
        self.endpoints = endpoints
        self.registered = registered
        self.gather = gather
        self.update = update
        self.delivered = delivered
        self.signal = signal
        self.bound = bound
    }

    func linkBound() { bound.yield(true) }

    func linkWaits(at stage: SessionStage) {
        guard passed.withLock({ $0.insert(stage).inserted }) else { return }
        if Self.checks.contains(stage) {
            do throws(FilesError) { try registered.checkFiles() } catch {
                return signal.fail(WorkerError(.checkpointChanged, error.description))
            }
        }
        if let update, HostUpdate.gates.contains(stage) {
            update.arrived(at: stage)
        } else {
            signal.permit(stage)
        }
    }

    /// What several hosts bring together is there for one session only.
    func linkRepeats(for workers: [Int]) throws(WorkerError) {
        guard update == nil || gather?.delivery.railCount == 0 else {
            throw WorkerError(
                .invalidArgument,
                "\(endpoints[workers[0]].engine) takes the weights once more, for a model that drafts, "
                    + "and several hosts that have a part of the checkpoint each cannot serve that: "
                    + "register the whole checkpoint on every host")
        }
        guard delivered == nil else {
            throw WorkerError(
                .invalidArgument,
                "\(endpoints[workers[0]].engine) takes the weights once more, for a model that drafts, "
                    + "but what passes through this host is not here any more: keep the checkpoint, "
                    + "which needs memory for all of it")
        }
        passed.withLock { $0 = [] }
        record.enterRepeat()
        do throws(DeviceError) {
            try gather?.runs.startAgain()
        } catch {
            throw WorkerError(.callFailed, error.message)
        }
    }

    func linkProgressed(_ progress: SessionProgress, touchesWeights: Bool, doneCount: Int) {
        // From a GPU's ring workers take nothing out of this host's memory.
        if let gather { gather.runs.release(doneCount) } else { delivered?.release(doneCount) }
        if record.isRepeating { return }
        record.report(progress, touchesWeights: touchesWeights, endpoints: endpoints)
    }
}
