import Testing

@testable import CheckpointEngine

struct EngineStatisticsTests {
    @Test func countersStayAtTheLargestNumber() {
        var bytes = 0
        for _ in 0..<200 { bytes.count(1 << 56) }
        #expect(bytes == .max)
        bytes.count(1)
        #expect(bytes == .max)
        var few = 40
        few.count(2)
        #expect(few == 42)
    }
}
