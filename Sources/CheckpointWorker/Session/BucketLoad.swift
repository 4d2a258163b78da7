/// One worker's load of one bucket.
public struct BucketLoad: Hashable, Sendable {
    /// The worker's place among the endpoints.
    public let worker: Int
    public let bucket: Int
    public let byteCount: Int
    /// When the worker's answer came.
    public let end: ContinuousClock.Instant
    /// By the worker's own clock; zero for workers that do not tell.
    public let duration: Duration

    /// The same of the worker at another place.
    func moved(to worker: Int) -> BucketLoad {
        BucketLoad(
            worker: worker, bucket: bucket, byteCount: byteCount, end: end, duration: duration)
    }
}
