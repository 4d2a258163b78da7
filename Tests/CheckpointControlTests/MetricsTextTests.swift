import CheckpointEngine
import Testing

@testable import CheckpointControl

@Suite("Metrics text")
struct MetricsTextTests {
    @Test func everySampleFollowsItsHelpAndType() {
        var statistics = EngineStatistics()
        statistics.lastUpdateSeconds = 1.5
        statistics.updatesFailed = ["worker_lost": 2, "a\"b\\c\nd": 1]
        var family = ""
        var type = ""
        var seen: Set<String> = []
        let text = MetricsText.render(statistics, version: "1")
        #expect(text.hasSuffix("\n"))
        for line in text.split(separator: "\n") {
            let words = line.split(separator: " ")
            if line.hasPrefix("# HELP ") {
                family = String(words[2])
                #expect(seen.insert(family).inserted, "\(family) stands twice")
            } else if line.hasPrefix("# TYPE ") {
                #expect(String(words[2]) == family)
                type = String(words[3])
            } else {
                let name = line.prefix { $0 != "{" && $0 != " " }
                #expect(String(name) == family)
                #expect(name.hasPrefix("checkpoint_engine_"))
                #expect((type == "counter") == name.hasSuffix("_total"), "\(line)")
                #expect(words.last.flatMap { Double($0) } != nil, "\(line)")
            }
        }
        #expect(text.contains("checkpoint_engine_updates_failed_total{code=\"worker_lost\"} 2\n"))
        #expect(text.contains("{code=\"a\\\"b\\\\c\\nd\"} 1\n"))
        #expect(text.contains("checkpoint_engine_last_update_seconds 1.5\n"))
    }

    @Test func leavesOutWhatHasNotHappened() {
        let text = MetricsText.render(EngineStatistics(), version: "1")
        #expect(!text.contains("last_update_seconds"))
        // Series exist from the start, so that their first increase is seen.
        for code in EngineError.Code.allCases {
            #expect(text.contains("updates_failed_total{code=\"\(code.rawValue)\"} 0\n"))
        }
        for stage in UpdateStatus.Stage.allCases {
            #expect(text.contains("stage_seconds_total{stage=\"\(stage.rawValue)\"} 0"))
        }
    }
}
