import CheckpointModel
import CheckpointNative
import Glibc
import Testing

@testable import CheckpointTransfer

@Suite(.timeLimit(.minutes(2)))
struct TransferAgentKeeperTests {
    private let fake: FakeAgent

    init() throws { fake = try FakeAgent() }

    private func keeper(_ mode: FakeAgent.Mode) -> TransferAgentKeeper {
        TransferAgentKeeper(fake.configuration(mode), logger: FakeAgent.quiet)
    }

    private func mapping(_ path: String, inode: UInt64 = 1) -> TransferMapping {
        TransferMapping(path: path, inode: inode, byteCount: 4096, isWritable: false)
    }

    @Test func anAgentThatIsKilledIsReplacedAndMapsAgain() async throws {
        let keeper = keeper(.works)
        await keeper.add(mapping("/a"))
        await keeper.add(mapping("/b"))
        let first = try await keeper.current()
        #expect(first.addresses.keys.map(\.text).sorted() == ["/a", "/b"])
        #expect(try await keeper.current().agent === first.agent)
        kill(first.agent.processID, SIGKILL)
        #expect(await first.agent.waitForEnd()?.code == .lost)
        let start = ContinuousClock.now
        let second = try await keeper.current()
        #expect(start.duration(to: .now) >= .milliseconds(300))
        #expect(second.session != first.session)
        #expect(second.addresses.keys.map(\.text).sorted() == ["/a", "/b"])
        #expect(second.addresses[ExactString("/a")] != first.addresses[ExactString("/a")])
        await keeper.stop()
        #expect(ProcessLife.isGone(second.agent.processID))
        let error = await FakeAgent.error { () throws(TransferError) in
            try await keeper.current()
        }
        #expect(error?.code == .lost)
    }

    @Test func callersAtOnceShareOneAgent() async throws {
        let keeper = keeper(.works)
        let sessions = try await withThrowingTaskGroup(of: String.self) { group in
            for index in 0..<20 {
                group.addTask { [mapping = mapping("/\(index)")] in
                    await keeper.add(mapping)
                    let current = try await keeper.current()
                    #expect(current.addresses[ExactString(mapping.path)] != nil)
                    return current.session
                }
            }
            return try await group.reduce(into: Set<String>()) { $0.insert($1) }
        }
        #expect(sessions.count == 1)
        await keeper.stop()
    }

    @Test func filesComeAndGoWhileTheAgentRuns() async throws {
        let keeper = keeper(.works)
        let empty = try await keeper.current()
        #expect(empty.addresses.isEmpty)
        await keeper.add(mapping("/a"))
        let first = try await keeper.current()
        await keeper.add(mapping("/a", inode: 2))
        let second = try await keeper.current()
        #expect(first.agent === second.agent)
        #expect(first.addresses[ExactString("/a")] != second.addresses[ExactString("/a")])
        let replaced = try #require(first.addresses[ExactString("/a")])
        let error = await FakeAgent.error { () throws(TransferError) in
            try await second.agent.unmap(replaced)
        }
        #expect(error?.message.contains("1 are mapped") == true)
        await keeper.remove(path: "/a")
        #expect(try await keeper.current().addresses.isEmpty)
        let gone = await FakeAgent.error { () throws(TransferError) in
            try await second.agent.unmap(replaced)
        }
        #expect(gone?.message.contains("0 are mapped") == true)
        await keeper.stop()
    }

    @Test func aFileThatCannotBeMappedSpoilsNoOther() async throws {
        let keeper = keeper(.refusesMaps)
        await keeper.add(mapping("/good"))
        await keeper.add(mapping("/bad", inode: 99))
        for _ in 0..<2 {
            let current = try await keeper.current()
            #expect(current.addresses.keys.map(\.text).sorted() == ["/good"])
            let failure = current.failures[ExactString("/bad")]
            #expect(failure?.message.contains("inode is not 99") == true)
        }
        await keeper.remove(path: "/bad")
        #expect(try await keeper.current().failures.isEmpty)
        await keeper.stop()
    }

    @Test func anAgentThatCannotWorkIsNotTriedInALoop() async throws {
        let keeper = keeper(.failed)
        for _ in 0..<3 {
            let error = await FakeAgent.error { () throws(TransferError) in
                try await keeper.current()
            }
            #expect(error?.code == .missing)
        }
        // The third failure makes the delay 2 s: whoever waits less is answered at once.
        let error = await FakeAgent.error { () throws(TransferError) in
            try await keeper.current(timeout: .seconds(1))
        }
        #expect(error?.code == .missing)
        await keeper.stop()
    }

    @Test func aStartThatIsStoppedLeavesNothing() async throws {
        let keeper = keeper(.silent)
        let task = Task {
            await FakeAgent.error { () throws(TransferError) in try await keeper.current() }
        }
        try await Task.sleep(for: .milliseconds(300))
        let start = ContinuousClock.now
        await keeper.stop()
        #expect(start.duration(to: .now) < .seconds(5))
        #expect(await task.value != nil)
    }

    @Test func aCallerCanGiveUp() async throws {
        let keeper = keeper(.silent)
        let late = await FakeAgent.error { () throws(TransferError) in
            try await keeper.current(timeout: .milliseconds(200))
        }
        #expect(late?.code == .timedOut)
        let task = Task {
            await FakeAgent.error { () throws(TransferError) in try await keeper.current() }
        }
        task.cancel()
        #expect(await task.value?.code == .cancelled)
        await keeper.stop()
    }

    @Test func theDelayGrowsAndIsForgotten() {
        var delay = RestartDelay()
        let now = ContinuousClock.now
        #expect(delay.remaining(at: now) == .zero)
        for expected in [0.5, 1, 2, 4, 8, 10, 10] {
            delay.noteEnd(at: now, lifetime: .seconds(1))
            #expect(delay.remaining(at: now) == .seconds(expected))
        }
        #expect(delay.remaining(at: now + .seconds(4)) == .seconds(6))
        #expect(delay.remaining(at: now + .seconds(11)) == .zero)
        delay.noteEnd(at: now, lifetime: .seconds(60))
        #expect(delay.remaining(at: now) == .seconds(0.5))
    }
}
