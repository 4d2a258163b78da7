import CheckpointTesting
import CheckpointTransfer
import Testing

@testable import CheckpointPull

@Suite struct SpareAgentsTests {
    @Test func anAgentThatIsGivenBackIsTakenAgain() async throws {
        let fixture = try PullFixture()
        let agents = SpareAgents(fixture.configuration(), logger: PullFixture.quiet)
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

    @Test func aPullGetsAllOfThem() async throws {
        let fixture = try PullFixture()
        let agents = SpareAgents(fixture.configuration(), count: 3, logger: PullFixture.quiet)
        await agents.prepare()
        let first = try await agents.takeAll()
        #expect(Set(first.map(\.processID)).count == 3)
        for agent in first.dropLast() { await agents.giveBack(agent) }
        await first[2].kill()
        let second = try await agents.takeAll()
        #expect(second.count == 3)
        #expect(
            Set(second.map(\.processID)).isSuperset(of: first.dropLast().map(\.processID)))
        for agent in second { await agents.giveBack(agent) }
        await agents.stop()
        #expect(second.allSatisfy(\.hasEnded) && fixture.agent.processes.isEmpty)
        await fixture.client.shutDown()
    }

    @Test func oneThatHasEndedIsNotGivenOut() async throws {
        let fixture = try PullFixture()
        let agents = SpareAgents(fixture.configuration(), logger: PullFixture.quiet)
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
