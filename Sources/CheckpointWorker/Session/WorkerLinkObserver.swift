/// What follows a link, on the link's thread.
public protocol WorkerLinkObserver: Sendable {
    /// Workers can connect.
    func linkBound()

    /// Called after each step. `doneCount` buckets are loaded by every worker, and their memory may be
    /// written to again.
    func linkProgressed(_ progress: SessionProgress, touchesWeights: Bool, doneCount: Int)

    /// The workers are ready for a gated stage; called again until it is permitted.
    func linkWaits(at stage: SessionStage)

    /// The workers at these places among the endpoints have come back: everything has to be delivered to
    /// them once more. Progress that follows is theirs alone.
    func linkRepeats(for workers: [Int]) throws(WorkerError)
}

extension WorkerLinkObserver {
    /// For links without gates.
    public func linkWaits(at stage: SessionStage) {}

    /// For links whose memory holds everything.
    public func linkRepeats(for workers: [Int]) throws(WorkerError) {}
}
