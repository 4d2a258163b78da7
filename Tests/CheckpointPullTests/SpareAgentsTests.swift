import CheckpointModel
import CheckpointTesting
import CheckpointTransfer
import Glibc
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
        #expect(again.agent.processID == first.agent.processID)
        // Another is started for whoever comes meanwhile, and only one is kept.
        let other = try await agents.take()
        #expect(other.agent.processID != first.agent.processID)
        await agents.giveBack(again)
        await agents.giveBack(other)
        #expect(!again.agent.hasEnded && other.agent.hasEnded)
        await agents.stop()
        #expect(again.agent.hasEnded && fixture.agent.processes.isEmpty)
        await fixture.client.shutDown()
    }

    @Test func aPullGetsAllOfThem() async throws {
        let fixture = try PullFixture()
        let agents = SpareAgents(fixture.configuration(), count: 3, logger: PullFixture.quiet)
        await agents.prepare()
        let first = try await agents.takeAll()
        #expect(Set(first.map(\.agent.processID)).count == 3)
        for agent in first.dropLast() { await agents.giveBack(agent) }
        await first[2].agent.kill()
        let second = try await agents.takeAll()
        #expect(second.count == 3)
        #expect(
            Set(second.map(\.agent.processID)).isSuperset(
                of: first.dropLast().map(\.agent.processID)))
        for agent in second { await agents.giveBack(agent) }
        await agents.stop()
        #expect(second.allSatisfy(\.agent.hasEnded) && fixture.agent.processes.isEmpty)
        await fixture.client.shutDown()
    }

    @Test func whatIsMappedStaysSoUntilTheFilesAreRemoved() async throws {
        let fixture = try PullFixture()
        let agents = SpareAgents(fixture.configuration(), logger: PullFixture.quiet)
        let directory = try TemporaryDirectory(in: "/dev/shm")
        var first = try await agents.take()
        for name in ["a", "b"] {
            let path = try directory.write([UInt8](repeating: 1, count: 4096), to: name)
            let location = try PullFixture.location(path)
            let mapping = TransferMapping(
                path: path, inode: location.inode, byteCount: 4096, isWritable: true)
            first.mapped[mapping] = try await first.agent.map(mapping)
        }
        await agents.giveBack(first)
        let second = try await agents.take()
        #expect(second.mapped == first.mapped && second.mapped.count == 2)
        #expect(unsafe unlink("\(directory.path)/a") == 0)
        await agents.giveBack(second)
        await agents.drop(paths: ["\(directory.path)/a"])
        #expect(!second.agent.hasEnded)
        await agents.drop(paths: ["\(directory.path)/b", "elsewhere"])
        #expect(second.agent.hasEnded)
        await agents.stop()
        await fixture.client.shutDown()
    }

    @Test func thoseThatNobodyTakesEnd() async throws {
        let fixture = try PullFixture()
        let agents = SpareAgents(
            fixture.configuration(), count: 2, keepTime: .seconds(2),
            logger: PullFixture.quiet)
        // Started for a pull that then could not begin.
        await agents.prepare()
        try await PullFixture.wait("they have started") { fixture.agent.processes.count == 2 }
        try await PullFixture.wait("they have ended") { fixture.agent.processes.isEmpty }
        // One that is taken stays, the other one ends.
        await agents.prepare()
        let taken = try await agents.take()
        try await PullFixture.wait("one has ended") { fixture.agent.processes.count == 1 }
        #expect(!taken.agent.hasEnded)
        await agents.giveBack(taken)
        try await PullFixture.wait("it has ended") { fixture.agent.processes.isEmpty }
        await agents.stop()
        await fixture.client.shutDown()
    }

    @Test func oneThatHasEndedIsNotGivenOut() async throws {
        let fixture = try PullFixture()
        let agents = SpareAgents(fixture.configuration(), logger: PullFixture.quiet)
        let first = try await agents.take()
        await agents.giveBack(first)
        await first.agent.kill()
        let next = try await agents.take()
        #expect(next.agent.processID != first.agent.processID && !next.agent.hasEnded)
        await next.agent.kill()
        await agents.stop()
        await #expect(throws: TransferError.self) { _ = try await agents.take() }
        #expect(fixture.agent.processes.isEmpty)
        await fixture.client.shutDown()
    }
}
