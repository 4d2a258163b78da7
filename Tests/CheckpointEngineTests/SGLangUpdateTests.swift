import CheckpointEngine
import CheckpointModel
import CheckpointTesting
import Synchronization
import Testing

/// Whole updates of SGLang servers, whose workers come back for each of their models.
struct SGLangUpdateTests {
    @Test(arguments: [1, 2, 3])
    func everySessionGetsEveryByte(_ sessions: Int) async throws {
        try await UpdateFixture.with(engines: { fixture in
            [
                try InProcessEngine("one", in: fixture.disk, workers: 2, sessions: sessions),
                try InProcessEngine("two", in: fixture.disk, workers: 1, sessions: 1),
            ]
        }) { fixture, engines in
            let source = try TemporaryDirectory()
            let catalog = try fixture.write(layout: 3, data: 9, to: source)
            try await fixture.engine.register(fixture.name, paths: [source.path])
            let status = try await fixture.update(fixture.request(engines, kind: .sglang))
            #expect(status.state == .succeeded, "\(status)")
            #expect(status.sessions == sessions)
            #expect(status.stages.map(\.stage).contains(.draft) == (sessions > 1))
            #expect(status.workers.allSatisfy { $0.committed })
            for rank in 0..<2 {
                let expected = try fixture.expected(catalog, in: source, rank: rank, of: 2)
                #expect(try engines[0].memory(rank: rank) == expected)
                #expect(
                    engines[0].earlierMemory(rank: rank)
                        == Array(repeating: expected, count: sessions - 1))
            }
            let expected = try fixture.expected(catalog, in: source, rank: 0, of: 1)
            #expect(try engines[1].memory(rank: 0) == expected)
            #expect(engines.flatMap(\.workerFailures).isEmpty)
            #expect(engines[0].targets == ["/server_info", "/update_weights_from_ipc"])
        }
    }

    @Test func aVLLMAndAnSGLangTogether() async throws {
        try await UpdateFixture.with(engines: { fixture in
            [
                try InProcessEngine("one", in: fixture.disk, workers: 1, sessions: 2),
                try InProcessEngine("two", in: fixture.disk, workers: 2),
            ]
        }) { fixture, engines in
            let source = try TemporaryDirectory()
            let catalog = try fixture.write(layout: 4, data: 10, to: source)
            try await fixture.engine.register(fixture.name, paths: [source.path])
            let request = UpdateRequest(
                instances: try zip(engines, [EngineKind.sglang, .vllm]).map { engine, kind in
                    EngineInstance(
                        updateURL: try HTTPURL("http://localhost"),
                        unixSocketPath: engine.socketPath,
                        kind: kind)
                }, timeoutSeconds: 60)
            let status = try await fixture.update(request)
            #expect(status.state == .succeeded, "\(status)")
            let expected = try fixture.expected(catalog, in: source, rank: 0, of: 1)
            #expect(try engines[0].memory(rank: 0) == expected)
            #expect(engines[0].earlierMemory(rank: 0) == [expected])
            let second = try fixture.expected(catalog, in: source, rank: 1, of: 2)
            #expect(try engines[1].memory(rank: 1) == second)
        }
    }

    @Test func aRefusedPauseTouchesNothing() async throws {
        try await UpdateFixture.with(engines: { fixture in
            [
                try InProcessEngine("one", in: fixture.disk, workers: 1) { request in
                    switch request.target.prefix(while: { $0 != "?" }) {
                    case "/pause": .answer(status: 501, body: "not here")
                    case "/resume": .answer(status: 200, body: "")
                    default: nil
                    }
                }
            ]
        }) { fixture, engines in
            let source = try TemporaryDirectory()
            _ = try fixture.write(layout: 4, data: 11, to: source)
            try await fixture.engine.register(fixture.name, paths: [source.path])
            let base = try fixture.request(engines)
            let status = try await fixture.update(
                UpdateRequest(instances: base.instances, timeoutSeconds: 30, pause: .keep))
            #expect(status.state == .failed)
            #expect(status.error?.code == "engine_failed")
            #expect(status.error?.message.contains("POST /pause answered 501") == true)
            #expect(status.error?.cause == "not here")
            #expect(status.control?.stillPaused == [])
            #expect(engines[0].targets == ["/pause?mode=keep&clear_cache=true"])
        }
    }

    @Test(arguments: ["", "two words", "line\n", String(repeating: "x", count: 257)])
    func wrongVersionsAreRefused(_ version: String) async throws {
        try await UpdateFixture.with(engines: { fixture in
            [try InProcessEngine("one", in: fixture.disk, workers: 1)]
        }) { fixture, engines in
            let source = try TemporaryDirectory()
            _ = try fixture.write(layout: 4, data: 12, to: source)
            try await fixture.engine.register(fixture.name, paths: [source.path])
            let request = UpdateRequest(
                instances: try fixture.request(engines).instances, weightVersion: version)
            let error = await #expect(throws: EngineError.self) {
                try await fixture.update(request)
            }
            #expect(error?.code == .invalidArgument)
            #expect(engines[0].targets.isEmpty)
        }
    }
}
