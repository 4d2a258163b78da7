import CheckpointEngine
import CheckpointModel
import CheckpointTesting
import Testing

/// Whole updates: files, shared memory, HTTP and workers, all real.
struct UpdateTests {
    @Test func everyWorkerGetsItsBytes() async throws {
        try await UpdateFixture.with(engines: { fixture in
            [
                try InProcessEngine("one", in: fixture.disk, workers: 2),
                try InProcessEngine("two", in: fixture.disk, workers: 1),
            ]
        }) { fixture, engines in
            let source = try TemporaryDirectory()
            let catalog = try fixture.write(layout: 1, data: 2, to: source)
            try await fixture.engine.register(fixture.name, paths: [source.path])
            let status = try await fixture.update(fixture.request(engines))
            #expect(status.state == .succeeded && status.error == nil, "\(status)")
            #expect(status.bytes == catalog.byteCount && status.loadedBytes == catalog.byteCount)
            #expect(status.buckets > 1)
            #expect(
                status.stages.map(\.stage)
                    == [.handshake, .catalog, .reload, .release, .commit, .finish])
            #expect(status.sessions == 1 && status.control == nil)
            #expect(status.workers.map(\.id) == ["CPU-0", "CPU-1", "CPU-0"])
            #expect(status.workers.allSatisfy { $0.committed && $0.pid > 0 })
            for (engine, count) in zip(engines, [2, 1]) {
                for rank in 0..<count {
                    let expected = try fixture.expected(
                        catalog, in: source, rank: rank, of: count)
                    #expect(try engine.memory(rank: rank) == expected)
                }
                #expect(
                    engine.targets == [
                        "/get_world_size?include_dp=true", "/collective_rpc", "/reset_prefix_cache",
                    ])
            }
            let statistics = await fixture.engine.statistics()
            #expect(statistics.updatesSucceeded == 1 && statistics.updatesFailed.isEmpty)
            #expect(statistics.deliveredBytes == 3 * catalog.byteCount)
            #expect(statistics.lastUpdateSeconds == status.seconds)
            #expect(statistics.updatesRunning == 0)
        }
    }

    @Test func theNextVersionTakesTheSameMemory() async throws {
        try await UpdateFixture.with(engines: {
            [try InProcessEngine("one", in: $0.disk, workers: 2)]
        }) { fixture, engines in
            let source = try TemporaryDirectory()
            let request = try fixture.request(engines, workerCount: 2, resetsPrefixCache: false)
            var used: Set<Int> = []
            for version in 0..<3 as Range<UInt64> {
                let catalog = try fixture.write(layout: 5, data: version, to: source)
                try await fixture.engine.register(fixture.name, paths: [source.path])
                let status = try await fixture.update(request)
                #expect(status.state == .succeeded, "\(status)")
                for rank in 0..<2 {
                    let expected = try fixture.expected(catalog, in: source, rank: rank, of: 2)
                    #expect(try engines[0].memory(rank: rank) == expected, "version \(version)")
                }
                let statistics = await fixture.engine.statistics()
                used.insert(statistics.pooledBytes + statistics.retainedBytes)
                try await fixture.engine.unregister(fixture.name)
            }
            #expect(used.count == 1)
            let calls = ["/get_world_size?include_dp=true", "/collective_rpc"]
            #expect(engines[0].targets == calls + calls + calls)
        }
    }

    /// Too few addresses would leave a worker with the old weights, too many nobody would come to.
    @Test(arguments: [1, 3], [EngineKind.vllm, .sglang])
    func anotherNumberOfWorkersIsRefused(_ count: Int, _ kind: EngineKind) async throws {
        try await UpdateFixture.with(engines: {
            [try InProcessEngine("one", in: $0.disk, workers: 2)]
        }) { fixture, engines in
            let source = try TemporaryDirectory()
            _ = try fixture.write(layout: 5, data: 1, to: source)
            try await fixture.engine.register(fixture.name, paths: [source.path])
            let status = try await fixture.update(
                fixture.request(engines, workerCount: count, kind: kind))
            #expect(status.error?.code == EngineError.Code.invalidArgument.rawValue)
            let words = ["names \(count) workers", "tells that it has 2"]
            #expect(words.allSatisfy { status.error?.message.contains($0) == true }, "\(status)")
            #expect(engines[0].targets.count == 1, "\(engines[0].targets)")
        }
    }

    @Test func consumedFilesGoAfterASuccess() async throws {
        try await UpdateFixture.with(engines: {
            [try InProcessEngine("one", in: $0.disk, workers: 1)]
        }) { fixture, engines in
            let source = try TemporaryDirectory(in: "/dev/shm")
            let catalog = try fixture.write(layout: 3, data: 4, to: source)
            let expected = try fixture.expected(catalog, in: source, rank: 0, of: 1)
            let summary = try await fixture.engine.register(
                fixture.name, paths: [source.path], consumes: true)
            #expect(summary.pooledBytes == 0)
            let status = try await fixture.update(fixture.request(engines))
            #expect(status.state == .succeeded, "\(status)")
            #expect(try engines[0].memory(rank: 0) == expected)
            #expect(source.names.count == 2)
            try await fixture.engine.unregister(fixture.name)
            #expect(source.names.isEmpty)
        }
    }

    @Test func filesThatChangedInPlaceAreNotDelivered() async throws {
        try await UpdateFixture.with(engines: {
            [try InProcessEngine("one", in: $0.disk, workers: 1)]
        }) { fixture, engines in
            let source = try TemporaryDirectory(in: "/dev/shm")
            _ = try fixture.write(layout: 3, data: 4, to: source)
            try await fixture.engine.register(fixture.name, paths: [source.path], consumes: true)
            _ = try fixture.write(layout: 3, data: 5, to: source)
            let status = try await fixture.update(fixture.request(engines))
            #expect(status.error?.code == EngineError.Code.invalidCheckpoint.rawValue)
            #expect(status.error?.message.contains(source.path) == true)
            #expect(engines[0].targets.isEmpty)
            try await fixture.engine.unregister(fixture.name)
            #expect(source.names.count == 2)
        }
    }

    @Test func oldUpdatesAreForgotten() async throws {
        try await UpdateFixture.with(
            historyCountMax: 2,
            engines: { [try InProcessEngine("one", in: $0.disk, workers: 1)] }
        ) { fixture, engines in
            let source = try TemporaryDirectory()
            _ = try fixture.write(layout: 1, data: 1, to: source)
            try await fixture.engine.register(fixture.name, paths: [source.path])
            var ids: [String] = []
            for _ in 0..<4 { ids.append(try await fixture.update(fixture.request(engines)).id) }
            #expect(Set(ids).count == 4)
            #expect(try await fixture.engine.update(ids[3]).state == .succeeded)
            let error = await #expect(throws: EngineError.self) {
                try await fixture.engine.update(ids[0])
            }
            #expect(error?.code == .notFound)
        }
    }
}
