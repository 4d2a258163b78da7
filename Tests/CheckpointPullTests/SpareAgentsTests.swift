import CheckpointTesting
import CheckpointTransfer
import Testing

@testable import CheckpointPull

@Suite struct SpareAgentTests {
    @Test func anAgentThatIsGivenBackIsTakenAgain() async throws {
        let fixture = try PullFixture()
        let agents = SpareAgent(fixture.configuration(), logger: PullFixture.quiet)
        await agents.prepare()
        let first = try await agents.take()
        await agents.giveBack(first)
        let again = try await agents.take()
        #expect(again.processID == first.processID)
        // Another is started for whoever comes meanwhile, and only one is kept.
        let other = try await agents.take()
        #expect(other.processID != first.processID)
        await agents.giveBack(again)
        await agents.giveBack(other)
        #expect(!again.hasEnded && other.hasEnded)
        await agents.stop()
        #expect(again.hasEnded && fixture.agent.processes.isEmpty)
        await fixture.client.shutDown()
    }

    @Test func oneThatHasEndedIsNotGivenOut() async throws {
        let fixture = try PullFixture()
        let agents = SpareAgent(fixture.configuration(), logger: PullFixture.quiet)
        let first = try await agents.take()
        await agents.giveBack(first)
        await first.kill()
        let next = try await agents.take()
        #expect(next.processID != first.processID && !next.hasEnded)
        await next.kill()
        await agents.stop()
        await #expect(throws: TransferError.self) { _ = try await agents.take() }
        #expect(fixture.agent.processes.isEmpty)
        await fixture.client.shutDown()
    }
}
