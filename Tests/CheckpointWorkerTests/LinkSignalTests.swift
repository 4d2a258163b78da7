import CheckpointTesting
import Dispatch
import Testing

@testable import CheckpointWorker

struct LinkSignalTests {
    @Test func theFirstFailureIsRemembered() throws {
        let signal = try LinkSignal()
        #expect(signal.failure == nil && signal.take().isEmpty)
        signal.engineAnswered("http://one")
        #expect(signal.failure == nil)
        signal.fail(WorkerError(.cancelled, "first"))
        #expect(signal.take().count == 2)
        signal.fail(WorkerError(.engineFailed, "second"))
        #expect(signal.take().count == 1)
        #expect(signal.failure?.message == "first")
    }

    /// More events than the pipe holds bytes: none is lost, and nobody waits.
    @Test func manyThreadsPostWhileOneTakes() throws {
        let signal = try LinkSignal()
        let posted = 100_000
        DispatchQueue.concurrentPerform(iterations: 4) { thread in
            for number in 0..<(posted / 4) { signal.engineAnswered("\(thread)-\(number)") }
        }
        var engines: Set<String> = []
        for event in signal.take() {
            if case .engineAnswered(let engine) = event { engines.insert(engine) }
        }
        #expect(engines.count == posted)
        #expect(signal.take().isEmpty)
    }
}
