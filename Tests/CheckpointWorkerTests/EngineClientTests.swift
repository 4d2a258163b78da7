import CheckpointModel
import CheckpointTesting
import Synchronization
import Testing

@testable import CheckpointWorker

/// The HTTP calls to an engine, against a real server on a unix socket.
struct EngineClientTests {
    /// Runs the test with a client and the address of a server that answers as `script` tells.
    private func with(
        _ script: @escaping ScriptedHTTPServer.Script,
        _ test: (EngineClient, EngineAddress, ScriptedHTTPServer) async throws -> Void
    ) async throws {
        let directory = try TemporaryDirectory()
        let server = try ScriptedHTTPServer(path: "\(directory.path)/s", script: script)
        let client = EngineClient()
        let engine = try EngineAddress(
            HTTPURL("http://localhost"), unixSocketPath: server.path)
        do {
            try await test(client, engine, server)
        } catch {
            server.stop()
            await client.shutDown()
            throw error
        }
        server.stop()
        await client.shutDown()
    }

    private static func failure(
        _ call: () async throws(WorkerError) -> Void
    ) async -> WorkerError? {
        do throws(WorkerError) {
            try await call()
            return nil
        } catch {
            return error
        }
    }

    @Test func theReloadIsTheCallOfTheEngine() async throws {
        try await with({ _ in .answer(status: 200, body: "{}") }) { client, engine, server in
            try await client.update(
                engine, addresses: [(.cpu(rank: 0), "ipc:///a"), (.cpu(rank: 1), "ipc:///b")],
                timeout: .seconds(90))
            let request = try #require(server.requests.first)
            #expect(server.requests.count == 1)
            #expect(request.method == "POST" && request.target == "/collective_rpc")
            #expect(request.headers["content-type"] == "application/json")
            #expect(request.headers["host"] == "localhost")
            #expect(
                String(decoding: request.body, as: UTF8.self)
                    == #"{"method":"update_weights_from_ipc","args":[{"CPU-0":"ipc:///a","#
                    + #""CPU-1":"ipc:///b"}],"timeout":90}"#)
        }
    }

    @Test(arguments: [(500, ""), (404, "VLLM_SERVER_DEV_MODE=1"), (401, "a key")])
    func aRefusalQuotesTheAnswer(_ status: Int, _ advice: String) async throws {
        try await with({ _ in .answer(status: status, body: "why") }) { client, engine, _ in
            let failure = await Self.failure { () async throws(WorkerError) in
                try await client.update(engine, addresses: [], timeout: .seconds(5))
            }
            #expect(failure?.code == .engineFailed)
            #expect(failure?.message.contains("answered \(status)") == true)
            #expect(failure?.message.contains(advice) == true || advice.isEmpty)
            #expect(failure?.cause == "why")
        }
    }

    @Test(arguments: [ScriptedHTTPServer.Reply.hang, .hangAfterHead(status: 200)])
    func anEngineThatHangsMeetsTheDeadline(_ reply: ScriptedHTTPServer.Reply) async throws {
        try await with({ _ in reply }) { client, engine, _ in
            let start = ContinuousClock.now
            let failure = await Self.failure { () async throws(WorkerError) in
                try await client.update(engine, addresses: [], timeout: .milliseconds(300))
            }
            #expect(failure?.code == .deadlineExceeded)
            #expect(failure?.message.contains("POST /collective_rpc within 0.3 s") == true)
            #expect(start.duration(to: .now) < .seconds(30))
        }
    }

    @Test func anEngineThatDiesDuringTheCallIsNamed() async throws {
        try await with({ _ in .close }) { client, engine, _ in
            let failure = await Self.failure { () async throws(WorkerError) in
                try await client.update(engine, addresses: [], timeout: .seconds(5))
            }
            #expect(failure?.code == .engineFailed)
            #expect(failure?.message.contains("closed the connection") == true)
        }
    }

    @Test func nobodyListens() async throws {
        let client = EngineClient()
        let directory = try TemporaryDirectory()
        let engine = try EngineAddress(
            HTTPURL("http://localhost"), unixSocketPath: "\(directory.path)/none")
        let failure = await Self.failure { () async throws(WorkerError) in
            try await client.update(engine, addresses: [], timeout: .seconds(5))
        }
        #expect(failure?.code == .engineUnreachable)
        #expect(failure?.message.contains("No such file") == true, "\(failure?.message ?? "")")
        await client.shutDown()
    }

    @Test func aCancelledCallIsNoFailureOfTheEngine() async throws {
        try await with({ _ in .hang }) { client, engine, server in
            let call = Task {
                await Self.failure { () async throws(WorkerError) in
                    try await client.update(engine, addresses: [], timeout: .seconds(30))
                }
            }
            while server.requests.isEmpty { try await Task.sleep(for: .milliseconds(5)) }
            call.cancel()
            #expect(await call.value?.code == .cancelled)
        }
    }

    @Test func waitsUntilTheEngineIsReady() async throws {
        let count = Atomic(0)
        let waits = Mutex<[String]>([])
        try await with({ request in
            #expect(request.method == "GET" && request.target == "/health")
            let isReady = count.add(1, ordering: .relaxed).oldValue > 0
            return .answer(status: isReady ? 200 : 503, body: isReady ? "" : "loading")
        }) { client, engine, _ in
            try await client.waitUntilReady(engine, deadline: .now + .seconds(90)) { last in
                waits.withLock { $0.append(last) }
            }
            #expect(waits.withLock { $0 } == ["GET /health answered 503: loading"])
        }
    }

    /// Waiting changes nothing about them.
    @Test(arguments: [
        (401, EngineKind.vllm, "--engine-token-file"), (403, .vllm, "--engine-token-file"),
        (404, .vllm, "of the kind vllm"), (404, .sglang, "of the kind sglang"),
    ])
    func answersThatStayAreTold(_ status: Int, _ kind: EngineKind, _ words: String) async throws {
        try await with({ _ in .answer(status: status, body: "no") }) { client, vllm, server in
            let engine = try EngineAddress(
                vllm.base, unixSocketPath: vllm.unixSocketPath, kind: kind)
            let failure = await Self.failure { () async throws(WorkerError) in
                try await client.waitUntilReady(engine, deadline: .now + .seconds(90)) { _ in }
            }
            #expect(failure?.code == .engineRefused)
            #expect(failure?.message.contains("answered \(status)") == true)
            #expect(failure?.message.contains(words) == true, "\(failure?.message ?? "")")
            #expect(server.requests.count == 1)
        }
    }

    /// The probe that the deadline cuts short says nothing.
    @Test func theLastProbeHidesNothing() async throws {
        let count = Atomic(0)
        try await with({ request in
            guard request.target == "/health" else { return .answer(status: 200, body: "") }
            let isFirst = count.add(1, ordering: .relaxed).oldValue == 0
            return isFirst ? .answer(status: 503, body: "loading") : .hang
        }) { client, engine, _ in
            let failure = await Self.failure { () async throws(WorkerError) in
                // The first call of all takes longer than the ones after it.
                try await client.resume(engine, deadline: .now + .seconds(30))
                // Time for the first answer, also while other tests compute on the same few threads, and
                // less than a whole second probe.
                try await client.waitUntilReady(engine, deadline: .now + .milliseconds(5400)) { _ in
                }
            }
            #expect(count.load(ordering: .relaxed) > 1)
            #expect(failure?.code == .engineUnreachable)
            #expect(failure?.message.contains("GET /health answered 503: loading") == true)
        }
    }

    @Test func anEngineThatIsNeverReadyIsToldWithItsLastAnswer() async throws {
        try await with({ _ in .answer(status: 503, body: "loading") }) { client, engine, _ in
            let failure = await Self.failure { () async throws(WorkerError) in
                try await client.waitUntilReady(engine, deadline: .now + .milliseconds(200)) { _ in
                }
            }
            #expect(failure?.code == .engineUnreachable)
            #expect(failure?.message.contains("GET /health answered 503: loading") == true)
        }
    }

    @Test(arguments: [
        (200, #"{"world_size":8}"#, 8), (200, #"{"world_size":0}"#, nil),
        (200, #"{"world_size":"8"}"#, nil), (200, "[]", nil), (404, #"{"world_size":8}"#, nil),
    ])
    func asksForTheNumberOfWorkers(_ status: Int, _ body: String, _ count: Int?) async throws {
        try await with({ _ in .answer(status: status, body: body) }) { client, engine, server in
            let answer = try await client.workerCount(engine, timeout: .seconds(5))
            #expect(answer == count)
            #expect(server.requests.map(\.target) == ["/get_world_size?include_dp=true"])
        }
    }

    @Test(arguments: [200, 404])
    func resetsThePrefixCache(_ status: Int) async throws {
        try await with({ _ in .answer(status: status, body: "") }) { client, engine, server in
            try await client.resetPrefixCache(engine, deadline: .now + .seconds(5))
            #expect(server.requests.map(\.target) == ["/reset_prefix_cache"])
        }
    }

    @Test func aCacheThatIsHeldIsAskedAgain() async throws {
        let count = Atomic(0)
        try await with({ _ in
            let isHeld = count.add(1, ordering: .relaxed).oldValue == 0
            return .answer(status: 200, body: isHeld ? #"{"success":false}"# : "{}")
        }) { client, engine, server in
            try await client.resetPrefixCache(engine, deadline: .now + .seconds(90))
            #expect(server.requests.count == 2)
        }
    }

    @Test func aCacheThatCannotBeResetIsTold() async throws {
        try await with({ _ in .answer(status: 500, body: "no") }) { client, engine, _ in
            let failure = await Self.failure { () async throws(WorkerError) in
                try await client.resetPrefixCache(engine, deadline: .now + .seconds(5))
            }
            #expect(failure?.code == .engineFailed)
            #expect(failure?.message.contains("has the new weights") == true)
            #expect(failure?.cause == "no")
        }
    }
}
