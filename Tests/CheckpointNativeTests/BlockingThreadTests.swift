import CheckpointNative
import Testing

struct BlockingThreadTests {
    private struct Failure: ShortageError, Equatable {
        let text: String
        init(_ text: String) { self.text = text }
        init(_ shortage: SystemShortage) { text = shortage.message }
    }

    @Test func resultsAndErrorsComeBack() async throws {
        #expect(await BlockingThread.run("answer") { 42 } == 42)
        await #expect(throws: Failure("no")) {
            try await BlockingThread.run("fail") { () throws(Failure) in throw Failure("no") }
        }
    }

    /// Each body waits for all others, so it would never end alone.
    @Test func bodiesThatWaitForEachOtherRunTogether() throws {
        let arrivedCount = BlockingState(0)
        try BlockingThread.runTogether("meet", count: 20) { _ in
            arrivedCount.update { $0 += 1 }
            _ = arrivedCount.wait { $0 == 20 ? true : nil }
        }
        #expect(arrivedCount.update { $0 } == 20)
    }

    @Test func everyIndexIsCalledOnce() {
        let calls = BlockingState<[Int]>([])
        BlockingThread.runAll("all", count: 9) { index in calls.update { $0.append(index) } }
        #expect(calls.update { $0.sorted() } == Array(0..<9))
    }
}
