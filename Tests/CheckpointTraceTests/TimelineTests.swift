import Testing

@testable import CheckpointTrace

struct TimelineTests {
    static func span(
        _ start: Double, _ seconds: Double, _ stage: Timeline.Stage = .reload,
        on track: Timeline.Track = .gpu(0), name: String = "bucket 0", bytes: Int = 0
    ) -> Timeline.Span {
        Timeline.Span(
            track: track, name: name, stage: stage, startSeconds: start, seconds: seconds,
            byteCount: bytes)
    }

    @Test func overlappingSpansCountOnce() {
        let timeline = Timeline(
            title: "", spans: [Self.span(4, 1), Self.span(0, 2), Self.span(1, 2), Self.span(1, 1)])
        #expect(timeline.busySeconds(.reload, on: .gpu(0)) == 4)
        #expect(timeline.busySeconds(.reload, on: .gpu(1)) == 0)
        #expect(timeline.busySeconds(.gather, on: .gpu(0)) == 0)
        #expect(timeline.totalSeconds == 5)
    }

    @Test func overlapIsCountedOnOneTrack() {
        let timeline = Timeline(
            title: "",
            spans: [
                Self.span(0, 3, .stage), Self.span(5, 2, .stage), Self.span(2, 4, .gather),
                Self.span(0, 9, .gather, on: .gpu(1)),
            ])
        #expect(timeline.overlapSeconds(.stage, .gather, on: .gpu(0)) == 2)
        #expect(timeline.overlapSeconds(.gather, .stage, on: .gpu(0)) == 2)
        #expect(timeline.overlapSeconds(.stage, .gather, on: .gpu(1)) == 0)
    }

    @Test func intervalsThatTouchAreOne() {
        let union = IntervalUnion([Self.span(1, 1), Self.span(0, 1), Self.span(7, 0)])
        #expect(union.intervals == [IntervalUnion.Interval(start: 0, end: 2)])
    }

    @Test func timesThatMakeNoSenseAreBounded() {
        let timeline = Timeline(
            title: "",
            spans: [
                Self.span(-1, .nan), Self.span(.infinity, -3, bytes: -1), Self.span(1e300, 1e300),
            ])
        #expect(timeline.totalSeconds == 2e9)
        #expect(timeline.summary(of: .reload).byteCount == 0)
        #expect(!timeline.svg().isEmpty)
        #expect(!timeline.chromeTrace().isEmpty)
    }

    @Test func aRateIsBytesOverBusyTime() {
        let timeline = Timeline(
            title: "",
            spans: [
                Self.span(0, 1, bytes: 3_000_000_000),
                Self.span(0, 2, on: .gpu(1), bytes: 1_000_000_000), Self.span(0, 1, .commit),
            ])
        let summary = timeline.summary(of: .reload)
        #expect(summary.busySeconds == 2)
        #expect(summary.byteCount == 4_000_000_000)
        #expect(summary.gigabytesPerSecond == 2)
        #expect(timeline.summary(of: .commit).gigabytesPerSecond == nil)
    }

    @Test func tracksComeInTheOrderOfTheirIndexes() {
        let tracks = [.gpu(10), .gpu(2), .control] as [Timeline.Track]
        let timeline = Timeline(title: "", spans: tracks.map { Self.span(0, 1, on: $0) })
        #expect(timeline.tracks.map(\.title) == ["control", "GPU 2", "GPU 10"])
    }
}

struct NumberTextTests {
    @Test(arguments: [
        (0.0, 0, "0"), (-0.5, 0, "-1"), (1.005, 1, "1.0"), (0.05, 2, "0.05"), (99.96, 1, "100.0"),
        (-1.25, 2, "-1.25"), (.nan, 1, "0.0"), (.infinity, 0, "1000000000000"),
    ])
    func digitsAfterThePoint(_ value: Double, _ places: Int, _ text: String) {
        #expect(NumberText.fixed(value, places: places) == text)
    }

    @Test func unitsFitTheValue() {
        #expect(NumberText.duration(0.001234) == "1.23 ms")
        #expect(NumberText.duration(0.009996) == "10.0 ms")
        #expect(NumberText.duration(0.9994) == "999.4 ms")
        #expect(NumberText.duration(0.99996) == "1.00 s")
        #expect(NumberText.coordinate(12.50) == "12.5")
        #expect(NumberText.coordinate(-0.001) == "0")
        #expect(NumberText.coordinate(100) == "100")
    }
}

struct AxisTicksTests {
    @Test(arguments: [
        (0.0, ["0"]), (0.1, ["0", "10", "20", "30", "40", "50", "60", "70", "80", "90", "100"]),
        (0.45, ["0", "50", "100", "150", "200", "250", "300", "350", "400", "450"]),
        (0.000_002_5, ["0", "0.0005", "0.001", "0.0015", "0.002", "0.0025"]),
    ])
    func ticksAreRound(_ seconds: Double, _ labels: [String]) {
        #expect(AxisTicks(upTo: seconds).nanoseconds.map(AxisTicks.label) == labels)
    }

    @Test(arguments: [1e-9, 3e-7, 0.0199, 1, 7.3, 61, 2e9])
    func ticksAreFewAndInside(_ seconds: Double) throws {
        let ticks = AxisTicks(upTo: seconds, intervalCountMax: 8).nanoseconds
        #expect((2...9).contains(ticks.count))
        #expect(try #require(ticks.last) <= Int((seconds * 1e9).rounded()))
    }
}
