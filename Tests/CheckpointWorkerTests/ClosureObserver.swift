import CheckpointWorker

/// An observer made of closures; the link's thread alone calls them.
struct ClosureObserver: WorkerLinkObserver {
    var onBound: @Sendable () -> Void = {}
    var onProgress: @Sendable (SessionProgress, _ touchesWeights: Bool) -> Void = { _, _ in }
    var onDone: @Sendable (Int) -> Void = { _ in }

    func linkBound() { onBound() }

    func linkProgressed(_ progress: SessionProgress, touchesWeights: Bool, doneCount: Int) {
        onProgress(progress, touchesWeights)
        onDone(doneCount)
    }
}
