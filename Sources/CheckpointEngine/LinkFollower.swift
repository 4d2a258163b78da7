import CheckpointTransport
import CheckpointWorker
import Synchronization

/// What an update's link tells: to its record, and to the copies that wait for free slots.
final class LinkFollower: WorkerLinkObserver {
    private let record: UpdateRecord
    private let endpoints: [WorkerEndpoint]
    private let gather: GatherRun?
    private let bound: AsyncStream<Bool>.Continuation

    init(
        record: UpdateRecord, endpoints: [WorkerEndpoint], gather: GatherRun?,
        bound: AsyncStream<Bool>.Continuation
    ) {
        self.record = record
        self.endpoints = endpoints
        self.gather = gather
        self.bound = bound
    }

    func linkBound() { bound.yield(true) }

    func linkProgressed(_ progress: SessionProgress, touchesWeights: Bool, doneCount: Int) {
        gather?.release(doneCount)
        record.report(progress, touchesWeights: touchesWeights, endpoints: endpoints)
    }
}
