import CheckpointTransport
import CheckpointWorker
import Synchronization

/// What an update's link tells: to its record, and to the copies that wait for room.
final class LinkFollower: WorkerLinkObserver {
    private let record: UpdateRecord
    private let endpoints: [WorkerEndpoint]
    private let gather: GatherRun?
    private let update: HostUpdate?
    private let bound: AsyncStream<Bool>.Continuation

    init(
        record: UpdateRecord, endpoints: [WorkerEndpoint], gather: GatherRun?,
        update: HostUpdate?, bound: AsyncStream<Bool>.Continuation
    ) {
        self.record = record
        self.endpoints = endpoints
        self.gather = gather
        self.update = update
        self.bound = bound
    }

    func linkBound() { bound.yield(true) }

    func linkWaits(at stage: SessionStage) { update?.arrived(at: stage) }

    func linkProgressed(_ progress: SessionProgress, touchesWeights: Bool, doneCount: Int) {
        gather?.release(doneCount)
        record.report(progress, touchesWeights: touchesWeights, endpoints: endpoints)
    }
}
