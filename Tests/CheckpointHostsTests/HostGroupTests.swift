import Synchronization
import Testing

@testable import CheckpointHosts

struct HostGroupTests {
    static let nextPort = Atomic(24_000 + Int.random(in: 0..<4000) * 4)

    private static func groups(_ count: Int, tokens: [String?]? = nil) async throws -> [HostGroup] {
        let port = nextPort.wrappingAdd(1, ordering: .relaxed).newValue
        let groups = try (0..<count).map { rank in
            try HostGroup(
                HostGroupConfiguration(
                    address: "127.0.0.1", port: port, hostCount: count, hostRank: rank,
                    name: "node-\(rank)", token: tokens?[rank] ?? "secret"))
        }
        for group in groups.reversed() { try await group.start() }
        return groups
    }

    private static func close(_ groups: [HostGroup]) async {
        for group in groups.reversed() { await group.close() }
    }

    private static func exchange(
        _ groups: [HostGroup], _ step: String, deadline: Duration = .seconds(10)
    ) async -> [Result<[[UInt8]], HostError>] {
        await withTaskGroup(of: (Int, Result<[[UInt8]], HostError>).self) { tasks in
            for group in groups {
                tasks.addTask {
                    do throws(HostError) {
                        let payload = Array("\(step) of \(group.rank)".utf8)
                        let all = try await group.exchange(
                            "scope", step, payload, deadline: .now + deadline)
                        return (group.rank, .success(all))
                    } catch {
                        return (group.rank, .failure(error))
                    }
                }
            }
            var results: [Int: Result<[[UInt8]], HostError>] = [:]
            for await (rank, result) in tasks { results[rank] = result }
            return groups.compactMap { results[$0.rank] }
        }
    }

    @Test(arguments: 1...4)
    func everybodyGetsWhatEverybodyGives(_ count: Int) async throws {
        let groups = try await Self.groups(count)
        for step in ["a", "b"] {
            let expected = (0..<count).map { Array("\(step) of \($0)".utf8) }
            for result in await Self.exchange(groups, step) {
                #expect(try result.get() == expected)
            }
        }
        await Self.close(groups)
    }

    @Test func aHostThatEndsIsNamed() async throws {
        let groups = try await Self.groups(3)
        _ = await Self.exchange(groups, "begin")
        let told = Mutex<[String]>([])
        for group in [groups[0], groups[1]] {
            await group.watch("scope") { error in told.withLock { $0.append(error.message) } }
        }
        async let waiting = Self.exchange([groups[0], groups[1]], "next")
        try await Task.sleep(for: .milliseconds(50))
        await groups[2].end("scope", reason: "its worker died")
        for result in await waiting {
            #expect(throws: HostError.self) { try result.get() }
        }
        #expect(told.withLock { $0 }.count == 2)
        #expect(
            told.withLock { $0 }.allSatisfy { $0 == "host 2 (node-2) failed: its worker died" })
        await Self.close(groups)
    }

    @Test func aHostThatIsGoneIsNamed() async throws {
        let groups = try await Self.groups(3)
        _ = await Self.exchange(groups, "begin")
        let told = Mutex<[String]>([])
        for group in [groups[0], groups[1]] {
            await group.watch("scope") { error in told.withLock { $0.append(error.message) } }
        }
        await groups[2].close()
        let end = ContinuousClock.now + .seconds(5)
        while told.withLock({ $0.count }) < 2, ContinuousClock.now < end {
            try await Task.sleep(for: .milliseconds(10))
        }
        #expect(told.withLock { $0 }.count == 2)
        #expect(told.withLock { $0 }.allSatisfy { $0.contains("host 2") })
        await Self.close(Array(groups.prefix(2)))
    }

    @Test func aHostThatDoesNotComeIsNamed() async throws {
        let groups = try await Self.groups(2)
        _ = await Self.exchange(groups, "begin")
        for present in groups {
            let start = ContinuousClock.now
            let results = await Self.exchange(
                [present], "alone-\(present.rank)", deadline: .milliseconds(200))
            #expect(throws: HostError.self) { try results[0].get() }
            // Far from for ever: other tests compute on the same few threads meanwhile.
            #expect(start.duration(to: .now) < .seconds(10))
        }
        await Self.close(groups)
    }

    @Test func aHostWithAnotherTokenIsNotTaken() async throws {
        let groups = try await Self.groups(2, tokens: ["right", "wrong"])
        let results = await Self.exchange(groups, "begin", deadline: .milliseconds(500))
        for result in results { #expect(throws: HostError.self) { try result.get() } }
        await Self.close(groups)
    }

    @Test func aHostThatIsRefusedSaysWhy() async throws {
        let groups = try await Self.groups(2, tokens: ["right", "wrong"])
        let results = await Self.exchange([groups[1]], "begin", deadline: .seconds(1))
        let error = #expect(throws: HostError.self) { try results[0].get() }
        #expect(error?.message.contains("another rendezvous token") == true)
        await Self.close(groups)
    }

    /// Whoever waits for a host that has given up learns of it at once; the next attempt succeeds.
    @Test(arguments: [0, 1, 2]) func aCancelledWaitEndsForAll(_ leaver: Int) async throws {
        let groups = try await Self.groups(3)
        _ = await Self.exchange(groups, "begin")
        // The last host does not come, so that the others wait.
        let waiting = groups.filter { $0.rank != (leaver + 1) % 3 }
        let tasks = waiting.map { group in
            Task { await Self.exchange([group], "next", deadline: .seconds(60))[0] }
        }
        let hub = groups[0]
        let expectedCount = waiting.count
        try await Self.eventually { await hub.contributionCount("scope/next") == expectedCount }
        let start = ContinuousClock.now
        for (group, task) in zip(waiting, tasks) where group.rank == leaver { task.cancel() }
        for (group, task) in zip(waiting, tasks) {
            let result = await task.value
            let error = #expect(throws: HostError.self) { try result.get() }
            if group.rank == leaver {
                #expect(error?.code == .cancelled)
            } else {
                #expect(error?.code == .hostFailed)
                #expect(error?.message.contains("host \(leaver) (node-\(leaver)) has left") == true)
            }
        }
        #expect(start.duration(to: .now) < .seconds(2))
        for result in await Self.exchange(groups, "next") { _ = try result.get() }
        await Self.close(groups)
    }

    /// The deadline of the hub's own wait is not that of the others.
    @Test func whatOthersGiveOutlivesTheHubsDeadline() async throws {
        let groups = try await Self.groups(2)
        _ = await Self.exchange(groups, "begin")
        let other = Task { await Self.exchange([groups[1]], "next")[0] }
        let hub = groups[0]
        try await Self.eventually { await hub.contributionCount("scope/next") == 1 }
        let short = await Self.exchange([groups[1]], "else", deadline: .milliseconds(50))
        #expect(throws: HostError.self) { try short[0].get() }
        await hub.forget("scope")
        #expect(await hub.contributionCount("scope/next") == 1)
        _ = try await Self.exchange([groups[0]], "next")[0].get()
        _ = try await other.value.get()
        await Self.close(groups)
    }

    private static func eventually(_ condition: () async -> Bool) async throws {
        let end = ContinuousClock.now + .seconds(10)
        while await !condition() {
            try #require(ContinuousClock.now < end)
            try await Task.sleep(for: .milliseconds(5))
        }
    }
}

extension HostGroup {
    fileprivate func contributionCount(_ key: String) -> Int {
        exchanges[key]?.payloads.count ?? 0
    }
}
