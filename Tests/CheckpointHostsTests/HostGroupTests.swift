import Synchronization
import Testing

@testable import CheckpointHosts

struct HostGroupTests {
    private static let nextPort = Atomic(24_000 + Int.random(in: 0..<4000) * 4)

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
            #expect(start.duration(to: .now) < .seconds(2))
        }
        await Self.close(groups)
    }

    @Test func aHostWithAnotherTokenIsNotTaken() async throws {
        let groups = try await Self.groups(2, tokens: ["right", "wrong"])
        let results = await Self.exchange(groups, "begin", deadline: .milliseconds(500))
        for result in results { #expect(throws: HostError.self) { try result.get() } }
        await Self.close(groups)
    }

    @Test func messagesSurviveTheirFrames() throws {
        let messages: [HostMessage] = [
            .hello(host: 1, hostCount: 2, name: "a\"b", token: ""), .welcome(names: ["x", ""]),
            .put(key: "k", payload: [0, 1, 255]), .withdraw(key: "k"),
            .all(key: "k", payloads: [[], [1], [2, 3]]),
            .end(scope: "s", host: 3, reason: "r"), .ping,
        ]
        for message in messages { #expect(try HostMessage(frame: message.frame()) == message) }
    }

    @Test(
        arguments: [
            [], [0, 0, 0], [0, 0, 0, 9, 1], Array("\0\0\0\u{2}{}".utf8),
            Array("\0\0\0\u{10}{\"type\":\"other\"}".utf8),
        ] as [[UInt8]])
    func otherFramesAreRefused(_ frame: [UInt8]) {
        #expect(throws: HostError.self) { try HostMessage(frame: frame) }
    }
}
