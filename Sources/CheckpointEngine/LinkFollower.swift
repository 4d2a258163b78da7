import CheckpointDevice
import CheckpointWorker
import Synchronization

/// What an update's link tells: to its record, and to the copies that wait for room.
final class LinkFollower: WorkerLinkObserver {
    private let record: UpdateRecord
    private let endpoints: [WorkerEndpoint]
    private let gather: RunningGather?
    private let update: HostUpdate?
    private let delivered: DeliveredBuckets?
    private let bound: AsyncStream<Bool>.Continuation

    init(
        record: UpdateRecord, endpoints: [WorkerEndpoint], gather: RunningGather?,
        update: HostUpdate?, delivered: DeliveredBuckets?,
        bound: AsyncStream<Bool>.Continuation
    ) {
        self.record = record
        self.endpoints = endpoints
        self.gather = gather
        self.update = update
        self.delivered = delivered
        self.bound = bound
    }

    func linkBound() { bound.yield(true) }

    func linkWaits(at stage: SessionStage) { update?.arrived(at: stage) }

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
