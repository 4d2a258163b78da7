extension Timeline {
    /// How long a stage was busy, and what it moved in that time.
    public struct StageSummary: Hashable, Sendable {
        /// Where spans overlap, the time counts once.
        public let busySeconds: Double
        public let byteCount: Int

        init(_ spans: [Span]) {
            busySeconds = IntervalUnion(spans).seconds
            byteCount = spans.reduce(0) { $0 + $1.byteCount }
        }

        /// Bytes over busy time, in GB/s: nil when there are none of either.
        public var gigabytesPerSecond: Double? {
            guard byteCount > 0, busySeconds > 0 else { return nil }
            return Double(byteCount) / busySeconds / 1e9
        }

        /// Such as `12.3 ms · 41.5 GB/s`.
        var text: String {
            let time = NumberText.duration(busySeconds)
            return rateText.map { "\(time) · \($0)" } ?? time
        }

        /// Such as `41.5 GB/s`.
        var rateText: String? {
            gigabytesPerSecond.map { "\(NumberText.fixed($0, places: $0 < 10 ? 2 : 1)) GB/s" }
        }
    }
}

extension Timeline.Span {
    var summary: Timeline.StageSummary { Timeline.StageSummary([self]) }
}
