import CheckpointJSON
import CheckpointTrace
import Testing

struct DrawingTests {
    private static let limits = JSONLimits(
        byteCountMax: 1 << 20, depthMax: 8, stringByteCountMax: 1000)

    private static func events(_ timeline: Timeline) throws -> [JSONObject] {
        guard
            case .object(let trace) = try JSONValue.parse(timeline.chromeTrace(), limits: limits),
            case .array(let events)? = trace["traceEvents"]
        else { return [] }
        #expect(trace["displayTimeUnit"] == .string("ms"))
        return events.compactMap { if case .object(let event) = $0 { event } else { nil } }
    }

    private static func text(_ timeline: Timeline) -> String {
        String(decoding: timeline.svg(), as: UTF8.self)
    }

    @Test func aTraceHasItsEvents() throws {
        let events = try Self.events(
            Timeline(
                title: "update",
                spans: [
                    TimelineTests.span(
                        0.5, 0.000_001_5, .gather, on: .gpu(1), name: "bucket 3", bytes: 3000),
                    TimelineTests.span(0, 0.25, .commit, on: .control, name: "commit"),
                ]))
        let spans = events.filter { $0["ph"] == .string("X") }
        #expect(spans.map { $0["name"] } == [.string("commit"), .string("bucket 3")])
        #expect(spans.map { $0["pid"] } == [.integer(1), .integer(2)])
        #expect(spans.map { $0["ts"] } == [.number(0), .number(500_000)])
        #expect(spans.map { $0["dur"] } == [.number(250_000), .number(1.5)])
        let arguments = JSONObject([("bytes", .integer(3000)), ("rate", .string("2.00 GB/s"))])
        #expect(spans.last?["args"] == .object(arguments))
    }

    @Test func processesAreTracksAndThreadsAreStages() throws {
        let events = try Self.events(
            Timeline(
                title: "",
                spans: [
                    TimelineTests.span(0, 1, .stage), TimelineTests.span(1, 1, .stage),
                    TimelineTests.span(0, 1, .gather, on: .gpu(1)),
                ]))
        let arguments = { (kind: String) in
            events.filter { $0["name"] == .string(kind) }.map { $0["args"] }
        }
        let names = { (names: [String]) in
            names.map { JSONValue.object(JSONObject([("name", .string($0))])) }
        }
        #expect(arguments("process_name") == names(["GPU 0", "GPU 1"]))
        #expect(arguments("thread_name") == names(["H2D", "gather"]))
        let threads = events.filter { $0["ph"] == .string("X") }.map { $0["tid"] }
        #expect(Set(threads).count == 2)
    }

    @Test func spansThatOverlapGetThreadsOfTheirOwn() throws {
        let events = try Self.events(
            Timeline(
                title: "",
                spans: [
                    TimelineTests.span(0, 2), TimelineTests.span(1, 2), TimelineTests.span(2, 1),
                ]))
        let threads = events.filter { $0["ph"] == .string("X") }.map { $0["tid"] }
        #expect(threads.count == 3 && Set(threads).count == 2)
    }

    @Test func textIsEscaped() {
        let text = Self.text(
            Timeline(
                title: "a <&\"> \u{1} b",
                spans: [
                    TimelineTests.span(
                        0, 1, on: .device(index: 0, name: "<&\""), name: "<i>&\"</i>")
                ]))
        #expect(text.contains("a &lt;&amp;&quot;&gt; \u{FFFD} b"))
        #expect(text.contains(">&lt;&amp;&quot;</text>"))
        #expect(!text.contains("<i>") && !text.contains("<&") && !text.contains("\u{1}"))
    }

    @Test func wideBarsHaveTheNumberOfTheirBucket() {
        let text = Self.text(
            Timeline(
                title: "",
                spans: [
                    TimelineTests.span(0, 1, name: "bucket 71"),
                    TimelineTests.span(1, 0.001, name: "bucket 72"),
                ]))
        #expect(text.contains(">71</text>"))
        #expect(!text.contains(">72</text>"))
        #expect(text.contains("bucket 72: "))
    }

    @Test func aTimelineMayBeEmpty() throws {
        let timeline = Timeline(title: "nothing", spans: [])
        #expect(timeline.totalSeconds == 0 && timeline.tracks.isEmpty)
        #expect(try Self.events(timeline).isEmpty)
        let text = Self.text(timeline)
        #expect(text.hasPrefix("<svg") && text.hasSuffix("</svg>\n"))
        #expect(text.contains(">nothing</text>"))
    }

    @Test func spansWithoutLengthAreDrawn() {
        let text = Self.text(Timeline(title: "", spans: [TimelineTests.span(0, 0)]))
        #expect(text.contains("width=\"1\"") && !text.contains("nan"))
    }
}
