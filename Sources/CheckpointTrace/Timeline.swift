/// What one update did when, and where: the material of a picture and of a trace.
///
/// Times are seconds on a single clock whose zero is the start of the update. A rate counts
/// 1 GB as 10^9 bytes.
public struct Timeline: Hashable, Sendable {
    /// One piece of work, such as the reload of one bucket on one device.
    public struct Span: Hashable, Sendable {
        public let track: Track
        /// Such as `bucket 3`. A number at its end is what a picture writes into the bar.
        public let name: String
        public let stage: Stage
        /// From the start of the update.
        public let startSeconds: Double
        public let seconds: Double
        /// Bytes that the work moved; zero when it moved none.
        public let byteCount: Int

        /// Negative values count as zero, and so do times that are not finite. A time ends at 10^9
        /// seconds, so that it can be told in nanoseconds.
        public init(
            track: Track, name: String, stage: Stage, startSeconds: Double, seconds: Double,
            byteCount: Int = 0
        ) {
            self.track = track
            self.name = name
            self.stage = stage
            self.startSeconds = Self.bounded(startSeconds)
            self.seconds = Self.bounded(seconds)
            self.byteCount = max(0, byteCount)
        }

        var endSeconds: Double { startSeconds + seconds }

        private static func bounded(_ seconds: Double) -> Double {
            seconds.isFinite ? min(max(0, seconds), 1e9) : 0
        }
    }

    public let title: String
    /// In any order; those of one track and stage may overlap.
    public let spans: [Span]

    public init(title: String, spans: [Span]) {
        self.title = title
        self.spans = spans
    }

    /// From the start of the update to the end of the span that ends last.
    public var totalSeconds: Double { spans.map(\.endSeconds).max() ?? 0 }

    /// The tracks that have a span, in their order.
    public var tracks: [Track] { Set(spans.map(\.track)).sorted() }

    /// The stages that have a span, in their order.
    public var stages: [Stage] { Set(spans.map(\.stage)).sorted() }

    /// Time in which `track` was at `stage`; where spans overlap, it counts once.
    public func busySeconds(_ stage: Stage, on track: Track) -> Double {
        intervals(stage, on: track).seconds
    }

    /// Time in which `track` was at both stages at once.
    public func overlapSeconds(_ first: Stage, _ second: Stage, on track: Track) -> Double {
        intervals(first, on: track).intersection(intervals(second, on: track)).seconds
    }

    /// All tracks together: the time in which at least one of them was at `stage`, and the bytes
    /// that all of them moved in it.
    public func summary(of stage: Stage) -> StageSummary {
        StageSummary(spans.filter { $0.stage == stage })
    }

    private func intervals(_ stage: Stage, on track: Track) -> IntervalUnion {
        IntervalUnion(spans.filter { $0.stage == stage && $0.track == track })
    }
}

// MARK: - Lanes

extension Timeline {
    /// The spans of one stage on one track.
    struct Lane {
        let track: Track
        let stage: Stage
        /// In the order of their starts.
        let spans: [Span]

        var summary: StageSummary { StageSummary(spans) }
    }

    private struct Place: Hashable {
        let track: Track
        let stage: Stage
    }

    /// Those that have a span, by track and then by stage.
    var lanes: [Lane] {
        Dictionary(grouping: spans) { Place(track: $0.track, stage: $0.stage) }
            .map { place, spans in
                let sorted = spans.sorted {
                    ($0.startSeconds, $0.seconds) < ($1.startSeconds, $1.seconds)
                }
                return Lane(track: place.track, stage: place.stage, spans: sorted)
            }
            .sorted { ($0.track, $0.stage) < ($1.track, $1.stage) }
    }
}
