import CheckpointNative
import CheckpointTransfer
import Glibc
import Testing

@Suite(.timeLimit(.minutes(2)))
struct TransferAgentTests {
    private static let mapping = TransferMapping(
        path: "/dev/shm/\"quoted\" é", inode: 7, byteCount: 4096, isWritable: true)
    private static let ranges = [TransferRange(local: 4096, remote: 8192, byteCount: 1024)]
    private let fake: FakeAgent

    init() throws { fake = try FakeAgent() }

    @Test func anAgentThatWorksDoesWhatItIsAsked() async throws {
        let agent = try await fake.start(.works)
        #expect(agent.session.hasPrefix("127.0.0.1:"))
        #expect(agent.protocolName == "tcp")
        #expect(agent.devices == ["mlx5_0", "mlx5_1", "0000:01:00.0"])
        #expect(agent.version == "0.3.13.post1")
        try await agent.ping()
        let address = try await agent.map(Self.mapping)
        #expect(address > 0)
        let seconds = try await agent.read(
            from: "10.0.0.1:12345", Self.ranges, timeout: .seconds(5))
        #expect(seconds == .seconds(1))
        try await agent.unmap(address)
        let error = await FakeAgent.error { () throws(TransferError) in
            try await agent.unmap(address)
        }
        #expect(error?.code == .failed)
        #expect(error?.message.contains("0 are mapped, not this one") == true)
        #expect(!agent.hasEnded)
        await agent.stop()
        #expect(agent.hasEnded)
        #expect(ProcessLife.isGone(agent.processID))
    }

    @Test func manyRequestsAtOnceGetTheirOwnAnswers() async throws {
        let agent = try await fake.start(.works)
        try await withThrowingTaskGroup(of: Void.self) { group in
            for index in 1...200 {
                group.addTask {
                    let range = TransferRange(local: 1, remote: 2, byteCount: index * 1024)
                    let took = try await agent.read(
                        from: "10.0.0.1:1", [range], timeout: .seconds(20))
                    #expect(took == .seconds(index))
                }
            }
            try await group.waitForAll()
        }
        await agent.stop()
    }

    @Test func thousandsOfRangesAreOneRead() async throws {
        let agent = try await fake.start(.works)
        let base: UInt = 0x7f00_0000_0000
        let ranges = (0..<8000).map { index in
            TransferRange(
                local: base + UInt(index) << 20, remote: base + UInt(index) << 20 + 1,
                byteCount: 768 << 10)
        }
        let start = ContinuousClock.now
        let took = try await agent.read(from: "[fe80::1]:15000", ranges, timeout: .seconds(20))
        print("8,000 ranges: \(start.duration(to: .now))")
        #expect(took == .seconds(8000 * 768))
        await agent.stop()
    }

    @Test func aProgramThatIsNotThereIsMissing() async throws {
        for executable in ["no-such-python-9", "/nowhere/python3"] {
            var configuration = fake.configuration(.works)
            configuration.executable = executable
            let error = await FakeAgent.error { [configuration] () throws(TransferError) in
                try await TransferAgent.start(configuration, logger: FakeAgent.quiet)
            }
            #expect(error?.code == .missing)
            #expect(error?.message.contains(executable) == true)
            #expect(error?.message.contains("pip install") == true)
        }
    }

    @Test(arguments: [
        (FakeAgent.Mode.failed, TransferError.Code.missing, "pip install it"),
        (.endsAtOnce, .missing, "No module named checkpoint_engine"),
        (.garbage, .failed, "Hello!"),
        (.endlessLine, .failed, "xxx"),
    ])
    func aBadBeginningIsTold(
        _ mode: FakeAgent.Mode, _ code: TransferError.Code, _ text: String
    ) async throws {
        let error = await FakeAgent.error { () throws(TransferError) in
            try await fake.start(mode)
        }
        #expect(error?.code == code)
        #expect(error?.message.contains(text) == true, "\(error?.message ?? "")")
    }

    @Test func aSilentAgentIsKilledInTime() async throws {
        let start = ContinuousClock.now
        let configuration = fake.configuration(.silent, startTimeout: .seconds(1))
        let error = await FakeAgent.error { () throws(TransferError) in
            try await TransferAgent.start(configuration, logger: FakeAgent.quiet)
        }
        #expect(error?.code == .timedOut)
        #expect(error?.message.contains("was not ready after 1.0 seconds") == true)
        #expect(start.duration(to: .now) < .seconds(15))
    }

    @Test func aStartCanBeCancelled() async throws {
        let configuration = fake.configuration(.silent)
        let task = Task {
            await FakeAgent.error { () throws(TransferError) in
                try await TransferAgent.start(configuration, logger: FakeAgent.quiet)
            }
        }
        try await Task.sleep(for: .milliseconds(300))
        task.cancel()
        #expect(await task.value?.code == .cancelled)
    }

    @Test(arguments: [
        FakeAgent.Mode.garbageLater, .answersNobody, .answersWrongly, .understandsNothing,
    ])
    func anAgentThatBreaksTheProtocolIsKilled(_ mode: FakeAgent.Mode) async throws {
        let agent = try await fake.start(mode)
        let error = await FakeAgent.error { () throws(TransferError) in try await agent.ping() }
        #expect(error?.code == .lost)
        #expect(await agent.waitForEnd()?.code == .lost)
        #expect(ProcessLife.isGone(agent.processID))
    }

    @Test func anAgentThatDiesFailsAllThatIsAsked() async throws {
        let agent = try await fake.start(.diesInRead)
        let errors = await withTaskGroup(of: TransferError?.self) { group in
            for _ in 0..<3 {
                group.addTask {
                    await FakeAgent.error { () throws(TransferError) in
                        try await agent.read(
                            from: "10.0.0.1:1", Self.ranges, timeout: .seconds(20))
                    }
                }
            }
            return await group.reduce(into: []) { $0.append($1) }
        }
        for error in errors {
            #expect(error?.code == .lost)
            #expect(error?.message.contains("status 7") == true)
            #expect(error?.message.contains("a segmentation fault") == true)
        }
        let error = await FakeAgent.error { () throws(TransferError) in try await agent.ping() }
        #expect(error?.code == .lost)
    }

    @Test func anAgentWithoutOutputIsEnded() async throws {
        let agent = try await fake.start(.closesOutput)
        #expect(await agent.waitForEnd()?.code == .lost)
        #expect(ProcessLife.isGone(agent.processID))
    }

    @Test func aReadThatTakesTooLongIsToldAndTheAgentKilled() async throws {
        let agent = try await fake.start(.hangsInRead)
        let error = await FakeAgent.error { () throws(TransferError) in
            try await agent.read(from: "10.0.0.1:1", Self.ranges, timeout: .milliseconds(200))
        }
        #expect(error?.code == .timedOut)
        #expect(error?.message.contains("10.0.0.1:1") == true)
        try await agent.ping()
        #expect(await !agent.waitForReads(timeout: .milliseconds(100)))
        #expect(await agent.kill())
        #expect(await agent.waitForReads(timeout: .milliseconds(100)))
        #expect(ProcessLife.isGone(agent.processID))
    }

    @Test func aCancelledReadLeavesTheAgentAlive() async throws {
        let agent = try await fake.start(.waitsForPing)
        let task = Task {
            await FakeAgent.error { () throws(TransferError) in
                try await agent.read(from: "10.0.0.1:1", Self.ranges, timeout: .seconds(20))
            }
        }
        while await agent.waitForReads(timeout: .zero) {
            try await Task.sleep(for: .milliseconds(1))
        }
        task.cancel()
        #expect(await task.value?.code == .cancelled)
        #expect(await !agent.waitForReads(timeout: .milliseconds(100)))
        try await agent.ping()
        #expect(await agent.waitForReads(timeout: .seconds(10)))
        await agent.stop()
    }

    @Test func whatIsMappedTooLateIsGivenBack() async throws {
        let agent = try await fake.start(.waitsForPing)
        let error = await FakeAgent.error { () throws(TransferError) in
            try await agent.map(Self.mapping, timeout: .milliseconds(100))
        }
        #expect(error?.code == .timedOut)
        // After its answer, and the unmapping that follows that, nothing is mapped.
        try await agent.ping()
        let refusal = await FakeAgent.error { () throws(TransferError) in
            try await agent.unmap(1)
        }
        #expect(refusal?.message.contains("0 are mapped") == true, "\(refusal?.message ?? "")")
        await agent.stop()
    }

    @Test func anAgentThatIgnoresTheEndIsKilled() async throws {
        let agent = try await fake.start(.ignoresTheEnd)
        let start = ContinuousClock.now
        // A task that is cancelled cleans up like any other.
        await Task {
            unsafe withUnsafeCurrentTask { unsafe $0?.cancel() }
            await agent.stop()
        }.value
        #expect(ProcessLife.isGone(agent.processID))
        #expect(start.duration(to: .now) < .seconds(15))
    }

    @Test func anAgentThatReadsNothingBlocksNobody() async throws {
        let agent = try await fake.start(.stopsReading)
        let ranges = Array(repeating: Self.ranges[0], count: 8000)
        for _ in 0..<3 {
            let error = await FakeAgent.error { () throws(TransferError) in
                try await agent.read(from: "10.0.0.1:1", ranges, timeout: .milliseconds(200))
            }
            #expect(error?.code == .timedOut)
        }
        await agent.stop()
        #expect(ProcessLife.isGone(agent.processID))
    }

    @Test func anAgentThatStandsStillIsKilled() async throws {
        let agent = try await fake.start(.works)
        kill(agent.processID, SIGSTOP)
        #expect(await agent.kill())
        #expect(ProcessLife.isGone(agent.processID))
    }

    @Test func anAgentThatNobodyHoldsIsKilled() async throws {
        var agent: TransferAgent? = try await fake.start(.works)
        let processID = try #require(agent?.processID)
        agent = nil
        let deadline = ContinuousClock.now + .seconds(10)
        while !ProcessLife.isGone(processID), ContinuousClock.now < deadline {
            try await Task.sleep(for: .milliseconds(10))
        }
        #expect(ProcessLife.isGone(processID))
        #expect(agent == nil)
    }

    @Test func whatIsNoRequestIsRefusedHere() async throws {
        let agent = try await fake.start(.works)
        let bad: [(String, [TransferRange])] = [
            ("10.0.0.1", Self.ranges), ("10.0.0.1:0", Self.ranges), (":1", Self.ranges),
            ("a b:1", Self.ranges), ("10.0.0.1:99999", Self.ranges), ("10.0.0.1:1", []),
            ("10.0.0.1:1", [TransferRange(local: 0, remote: 1, byteCount: 1)]),
            ("10.0.0.1:1", [TransferRange(local: 1, remote: 1, byteCount: 0)]),
            ("10.0.0.1:1", [TransferRange(local: .max, remote: 1, byteCount: 1)]),
            ("10.0.0.1:1", [TransferRange(local: 1, remote: UInt(Int.max), byteCount: 1)]),
        ]
        for (session, ranges) in bad {
            let error = await FakeAgent.error { () throws(TransferError) in
                try await agent.read(from: session, ranges, timeout: .seconds(5))
            }
            #expect(error?.code == .failed)
        }
        try await agent.ping()
        await agent.stop()
    }
}
