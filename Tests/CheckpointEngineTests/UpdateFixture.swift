import CheckpointEngine
import CheckpointModel
import CheckpointPlan
import CheckpointTesting
import CheckpointWorker
import Foundation
import Logging
import Testing

/// A real daemon's engine with directories of its own, and checkpoints of random tensors.
struct UpdateFixture {
    static let bucketByteCountMax = 4000
    let memory: TemporaryDirectory
    let disk: TemporaryDirectory
    let engine: CheckpointEngine
    let name: CheckpointName

    private init(historyCountMax: Int) throws {
        memory = try TemporaryDirectory(in: "/dev/shm")
        disk = try TemporaryDirectory()
        name = try #require(CheckpointName("step"))
        engine = try CheckpointEngine(
            configuration: EngineConfiguration(
                sharedMemoryDirectory: memory.path, runtimeDirectory: disk.path,
                bucketByteCountMax: Self.bucketByteCountMax,
                zeroMQLibraryNames: ZeroMQNames.all, updateHistoryCountMax: historyCountMax),
            logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() })
    }

    /// Runs the test, stops the engines and the daemon, and checks that no file of the daemon is left.
    static func with(
        historyCountMax: Int = 16, engines: @Sendable (UpdateFixture) throws -> [InProcessEngine],
        _ test: (UpdateFixture, [InProcessEngine]) async throws -> Void
    ) async throws {
        let fixture = try UpdateFixture(historyCountMax: historyCountMax)
        let engines = try engines(fixture)
        var failure: (any Error)?
        do { try await test(fixture, engines) } catch { failure = error }
        await fixture.engine.shutDown()
        for engine in engines { engine.stop() }
        for directory in [fixture.memory, fixture.disk] {
            #expect(directory.privateNames.isEmpty)
        }
        if let failure { throw failure }
    }

    /// Writes the files of a random checkpoint; equal `layout` seeds give equal layouts.
    func write(layout: UInt64, data: UInt64, to directory: TemporaryDirectory) throws -> Catalog {
        var layoutGenerator = SeededGenerator(seed: layout)
        let catalog = RandomCatalog.make(
            tensorCount: 60, shardCount: 2, using: &layoutGenerator)
        var generator = SeededGenerator(seed: data)
        for shard in catalog.shards.indices {
            try directory.write(
                SafetensorsBuilder.file(catalog, shard: shard, using: &generator),
                to: catalog.shards[shard].name)
        }
        return catalog
    }

    /// What the memory of one rank has to hold, from the files as they are now.
    func expected(_ catalog: Catalog, in directory: TemporaryDirectory, rank: Int, of count: Int)
        throws -> [UInt8]
    {
        let data = try catalog.shards.map { shard in
            try TemporaryDirectory.read("\(directory.path)/\(shard.name)").suffix(shard.byteCount)
        }.map(Array.init)
        let plan = UpdatePlan(catalog: catalog, bucketByteCountMax: Self.bucketByteCountMax)
        return plan.order.flatMap { place in
            let tensor = catalog.tensors[place]
            let slice = TensorSlice(tensor, rank: rank, worldSize: count)
            return (0..<slice.rowCount).flatMap { row in
                let start = tensor.range.offset + slice.offset + row * slice.rowStride
                return data[tensor.shard][start..<(start + slice.rowByteCount)]
            }
        }
    }

    func request(
        _ engines: [InProcessEngine], workerCount: Int? = nil, timeoutSeconds: Double = 60,
        resetsPrefixCache: Bool = true, kind: EngineKind = .vllm
    ) throws -> UpdateRequest {
        UpdateRequest(
            instances: try engines.map {
                EngineInstance(
                    updateURL: try HTTPURL("http://localhost"), unixSocketPath: $0.socketPath,
                    workerCount: workerCount, kind: kind)
            }, timeoutSeconds: timeoutSeconds, resetsPrefixCache: resetsPrefixCache)
    }

    /// Starts the update and waits for its end.
    func update(_ request: UpdateRequest) async throws -> UpdateStatus {
        try await engine.finishedUpdate(engine.startUpdate(name, request).id)
    }
}
