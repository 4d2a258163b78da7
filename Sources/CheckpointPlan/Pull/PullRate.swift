/// How fast an endpoint sends, as measured: the bytes of its batches in the time in which it had any.
///
/// Batches that were asked for together may also end together, or in another order; so the time is not
/// that of single batches but what has passed between two ends, and one that ends together with the one
/// before adds its bytes and no time.
struct PullRate: Sendable {
    /// No batch takes less: clocks have a grain.
    private static let secondsMin = 1e-6

    private var byteCount = 0.0
    private var seconds = 0.0
    /// Up to when time is in ``seconds``: the last end, or the begin after a pause.
    private(set) var accountedSeconds = -Double.infinity

    /// Bytes a second; `nil` before the first measurement.
    var bytesPerSecond: Double? {
        byteCount > 0 ? byteCount / max(seconds, Self.secondsMin) : nil
    }

    /// A batch has ended well. What came before counts less by the time that it took, and half when that
    /// is `halfLife` seconds or more: alone it may have shared its time with another.
    mutating func end(_ batchByteCount: Int, at now: Double, halfLife: Double) {
        let taken = max(0, now - accountedSeconds)
        let weight = 1 - min(1, taken / halfLife) / 2
        byteCount = byteCount * weight + Double(batchByteCount)
        seconds = seconds * weight + taken
        skip(to: now)
    }

    /// The time up to now says nothing: the endpoint had nothing to send, or a batch has failed.
    mutating func skip(to now: Double) { accountedSeconds = max(now, accountedSeconds) }
}
