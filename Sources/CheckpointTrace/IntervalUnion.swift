/// Stretches of time that neither overlap nor touch, in ascending order.
struct IntervalUnion: Hashable {
    struct Interval: Hashable {
        let start: Double
        let end: Double
    }

    private(set) var intervals: [Interval] = []

    /// The time that at least one of `intervals` covers; those without length cover none.
    init(_ intervals: [Interval]) {
        let covering = intervals.filter { $0.start < $0.end }
        for interval in covering.sorted(by: { $0.start < $1.start }) {
            if let last = self.intervals.last, interval.start <= last.end {
                self.intervals[self.intervals.count - 1] = Interval(
                    start: last.start, end: max(last.end, interval.end))
            } else {
                self.intervals.append(interval)
            }
        }
    }

    init(_ spans: [Timeline.Span]) {
        self.init(spans.map { Interval(start: $0.startSeconds, end: $0.endSeconds) })
    }

    var seconds: Double { intervals.reduce(0) { $0 + ($1.end - $1.start) } }

    /// The time that both cover.
    func intersection(_ other: IntervalUnion) -> IntervalUnion {
        var common: [Interval] = []
        var place = 0
        var otherPlace = 0
        while place < intervals.count, otherPlace < other.intervals.count {
            let mine = intervals[place]
            let theirs = other.intervals[otherPlace]
            common.append(
                Interval(start: max(mine.start, theirs.start), end: min(mine.end, theirs.end)))
            if mine.end < theirs.end { place += 1 } else { otherPlace += 1 }
        }
        return IntervalUnion(common)
    }
}
