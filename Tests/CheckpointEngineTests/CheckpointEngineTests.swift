import CheckpointEngine
import CheckpointModel
import CheckpointTesting
import Foundation
import Logging
import Testing

/// The engine on real files and real shared memory, without workers.
struct CheckpointEngineTests {
    private let memory: TemporaryDirectory
    private let disk: TemporaryDirectory
    private let name: CheckpointName
    private let catalog: Catalog

    init() throws {
        memory = try TemporaryDirectory(in: "/dev/shm")
        disk = try TemporaryDirectory()
        name = try #require(CheckpointName("step-1"))
        var generator = SeededGenerator(seed: 11)
        catalog = RandomCatalog.make(tensorCount: 50, shardCount: 2, using: &generator)
        for shard in catalog.shards.indices {
            try disk.write(
                SafetensorsBuilder.file(catalog, shard: shard, using: &generator),
                to: catalog.shards[shard].name)
        }
    }

    /// Runs `body` with an engine whose files all lie in the two directories.
    private func withEngine(
        limit: Int? = nil, _ body: (CheckpointEngine) async throws -> Void
    ) async throws {
        let engine = try CheckpointEngine(
            configuration: EngineConfiguration(
                sharedMemoryDirectory: memory.path, runtimeDirectory: disk.path,
                memoryByteCountMax: limit, zeroMQLibraryNames: ZeroMQNames.all),
            logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() })
        do {
            try await body(engine)
        } catch {
            await engine.shutDown()
            throw error
        }
        await engine.shutDown()
        #expect(memory.privateNames.isEmpty)
        #expect(disk.privateNames.isEmpty)
    }

    @Test func registersAndForgets() async throws {
        try await withEngine { engine in
            let summary = try await engine.register(name, paths: [disk.path])
            #expect(summary.state == .ready)
            #expect(summary.bytes == catalog.byteCount && summary.tensors == 50)
            #expect(summary.files == 2 && summary.inPlaceBytes == 0 && summary.pooledBytes > 0)
            #expect(summary.dtypes.values.reduce(0, +) == 50)
            #expect(await engine.checkpoints() == [summary])
            #expect(await engine.statistics().registeredBytes == catalog.byteCount)
            try await engine.unregister(name)
            #expect(await engine.checkpoints().isEmpty)
            #expect(await engine.statistics().retainedBytes == summary.pooledBytes)
            try await engine.register(name, paths: [disk.path])
            #expect(await engine.statistics().retainedBytes == 0)
            try await engine.unregister(name, releasesMemory: true)
            #expect(await engine.statistics().retainedBytes == 0)
        }
    }

    @Test func filesInSharedMemoryAreUsedInPlace() async throws {
        for file in disk.names.filter({ $0.hasSuffix(".safetensors") }) {
            try memory.write(TemporaryDirectory.read("\(disk.path)/\(file)"), to: file)
        }
        try await withEngine { engine in
            let summary = try await engine.register(name, paths: [memory.path], consumes: true)
            #expect(summary.pooledBytes == 0 && summary.inPlaceBytes > catalog.byteCount)
            try await engine.unregister(name)
        }
        // Consumed files go only after an update has succeeded.
        #expect(memory.names.count == 2)
    }

    @Test func aTakenNameStaysUntouched() async throws {
        try await withEngine { engine in
            let summary = try await engine.register(name, paths: [disk.path])
            let error = await #expect(throws: EngineError.self) {
                try await engine.register(name, paths: [disk.path])
            }
            #expect(error?.code == .alreadyExists)
            #expect(try await engine.checkpoint(name) == summary)
        }
    }

    @Test func aFailedRegistrationLeavesNothing() async throws {
        try disk.write([1, 2, 3], to: "zz.safetensors")
        try await withEngine { engine in
            let error = await #expect(throws: EngineError.self) {
                try await engine.register(name, paths: [disk.path])
            }
            #expect(error?.code == .invalidCheckpoint)
            #expect(error?.message.contains("zz.safetensors") == true)
            let statistics = await engine.statistics()
            #expect(statistics.checkpoints == 0 && statistics.pooledBytes == 0)
            #expect(statistics.registrationFailures == 1)
        }
    }

    @Test func whatDoesNotFitIsRefused() async throws {
        try await withEngine(limit: 4096) { engine in
            let error = await #expect(throws: EngineError.self) {
                try await engine.register(name, paths: [disk.path])
            }
            #expect(error?.code == .insufficientMemory)
            #expect(await engine.checkpoints().isEmpty)
        }
    }

    @Test func metasHaveTheKnownShape() async throws {
        try await withEngine { engine in
            #expect(await engine.metas().ranks.isEmpty)
            try await engine.register(name, paths: [disk.path])
            let metas = try await engine.gatherMetas(name)
            #expect(await engine.metas() == metas)
            let json = try JSONSerialization.jsonObject(with: JSONEncoder().encode(metas))
            let ranks = try #require(json as? [String: [String: Any]])
            let rank = try #require(ranks["0"])
            #expect(
                Set(rank.keys) == ["p2p_store_addr", "memory_buffer_metas_list", "rdma_device"])
            #expect(rank["p2p_store_addr"] is NSNull)
            let buffers = try #require(rank["memory_buffer_metas_list"] as? [[String: Any]])
            #expect(buffers.map { $0["size"] as? Int } == catalog.shards.map(\.byteCount))
            let parameters = buffers.flatMap { $0["metas"] as? [[String: Any]] ?? [] }
            #expect(parameters.count == 50)
            #expect(
                parameters.reduce(0) { $0 + ($1["aligned_size"] as? Int ?? 0) }
                    == catalog.byteCount)
            let decoded = try JSONDecoder().decode(
                MetasDocument.self, from: JSONEncoder().encode(metas))
            #expect(decoded == metas)
        }
    }

    @Test func anUpdateOfNobodyFailsAndTheNextCallWorks() async throws {
        try await withEngine { engine in
            try await engine.register(name, paths: [disk.path])
            let instance = EngineInstance(
                updateURL: try HTTPURL("http://localhost"),
                unixSocketPath: "\(disk.path)/nobody.sock",
                workerCount: 1)
            let request = UpdateRequest(instances: [instance], timeoutSeconds: 20)
            let started = try await engine.startUpdate(name, request)
            #expect(started.state == .running && started.bytes == catalog.byteCount)
            let error = await #expect(throws: EngineError.self) {
                try await engine.startUpdate(name, request)
            }
            #expect(error?.code == .busy)
            let ended = try await engine.finishedUpdate(started.id)
            #expect(ended.state == .failed)
            #expect(ended.error?.code == EngineError.Code.engineUnreachable.rawValue)
            #expect(try await engine.update(started.id) == ended)
            #expect(try await engine.checkpoint(name).state == .ready)
            #expect(await engine.statistics().updatesFailed == ["engine_unreachable": 1])
            let again = try await engine.startUpdate(name, request)
            try await engine.cancelUpdate(again.id, reason: "the test ends")
            _ = try await engine.finishedUpdate(again.id)
            try await engine.unregister(name)
        }
    }

    @Test func wrongRequestsAreRefused() async throws {
        try await withEngine { engine in
            try await engine.register(name, paths: [disk.path])
            let engineOne = EngineInstance(updateURL: try HTTPURL("http://a"))
            let other = try #require(CheckpointName("other"))
            for (checkpoint, request, code) in [
                (name, UpdateRequest(instances: []), EngineError.Code.invalidArgument),
                (name, UpdateRequest(instances: [engineOne, engineOne]), .invalidArgument),
                (name, UpdateRequest(instances: [engineOne], timeoutSeconds: 0), .invalidArgument),
                (
                    name,
                    UpdateRequest(
                        instances: [.init(updateURL: engineOne.updateURL, unixSocketPath: "x")]),
                    .invalidArgument
                ),
                (
                    name,
                    UpdateRequest(
                        instances: [.init(updateURL: engineOne.updateURL, workerCount: 0)]),
                    .invalidArgument
                ),
                (other, UpdateRequest(instances: [engineOne]), .notFound),
            ] {
                let error = await #expect(throws: EngineError.self) {
                    try await engine.startUpdate(checkpoint, request)
                }
                #expect(error?.code == code)
            }
            await #expect(throws: EngineError.self) { try await engine.update("update-99") }
        }
    }
}
