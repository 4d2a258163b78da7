import CheckpointEngine
import CheckpointModel
import CheckpointTesting
import CheckpointWorker
import Foundation
import Synchronization
import Testing

/// Checkpoints of parts, and updates whose engine calls the client makes.
struct ClientUpdateTests {
    /// Reference workers of one engine on threads, one for each address; returns their failures.
    private static func work(
        _ sockets: [String], _ directory: TemporaryDirectory, context: ZeroMQContext
    ) async -> [String] {
        await withTaskGroup(of: String?.self) { group in
            for (rank, address) in sockets.enumerated() {
                group.addTask {
                    await withCheckedContinuation { continuation in
                        let thread = Thread {
                            let worker = ReferenceWorker(
                                id: .cpu(rank: rank),
                                memory: ReferenceMemory(
                                    path: "\(directory.path)/memory-\(rank)", rank: rank,
                                    worldSize: sockets.count),
                                context: context)
                            do throws(WorkerError) {
                                try worker.run(address: address)
                                continuation.resume(returning: nil)
                            } catch {
                                continuation.resume(returning: error.message)
                            }
                        }
                        thread.start()
                    }
                }
            }
            return await group.reduce(into: []) { failures, failure in
                if let failure { failures.append(failure) }
            }
        }
    }

    private func names(_ texts: String...) throws -> [CheckpointName] {
        try texts.map { try #require(CheckpointName($0)) }
    }

    /// Registers each file of a random checkpoint as a part, and composes them as `step`.
    private func compose(_ fixture: UpdateFixture, _ source: TemporaryDirectory) async throws
        -> (Catalog, [CheckpointName])
    {
        let catalog = try fixture.write(
            layout: .random(in: 0 ... .max), data: .random(in: 0 ... .max), to: source)
        let parts = try names("step.rank0", "step.rank1")
        for (part, shard) in zip(parts, catalog.shards) {
            try await fixture.engine.register(part, paths: ["\(source.path)/\(shard.name)"])
        }
        let summary = try await fixture.engine.compose(fixture.name, of: parts)
        #expect(summary.tensors == catalog.tensors.count && summary.bytes == catalog.byteCount)
        #expect(summary.parts == parts.map(\.description) && summary.pooledBytes == 0)
        return (catalog, parts)
    }

    private func code(_ body: () async throws -> Void) async -> EngineError.Code? {
        do { try await body() } catch { return (error as? EngineError)?.code }
        return nil
    }

    @Test func partsReachTheWorkersTogether() async throws {
        try await UpdateFixture.with(engines: { _ in [] }) { fixture, _ in
            let source = try TemporaryDirectory()
            let (catalog, parts) = try await compose(fixture, source)
            let engine = fixture.engine
            let context = try ZeroMQContext(libraryNames: ZeroMQNames.all)
            // Twice: the second update takes the composition again.
            for _ in 0..<2 {
                let opened = try await engine.openUpdate(
                    fixture.name, workers: ["CPU-0", "CPU-1"], calls: 2, timeoutSeconds: 60)
                #expect(opened.sockets.count == 2)
                #expect(await code { try await engine.unregister(parts[0]) } == .busy)
                let waiting = try await engine.update(opened.update, waitingSeconds: 0.01)
                #expect(waiting.state == .running)
                let failures = await Self.work(opened.sockets, fixture.disk, context: context)
                #expect(failures == [])
                for call in 0..<2 {
                    _ = try await engine.reportCall(call, of: opened.update, error: nil)
                }
                let ended = try await engine.update(opened.update, waitingSeconds: 60)
                #expect(ended.state == .succeeded, "\(ended)")
                for rank in 0..<2 {
                    let expected = try fixture.expected(catalog, in: source, rank: rank, of: 2)
                    let path = "\(fixture.disk.path)/memory-\(rank)"
                    #expect(try TemporaryDirectory.read(path) == expected)
                }
            }
            try await engine.unregister(parts[0])
            #expect(await engine.checkpoints().map(\.name) == [parts[1].description])
        }
    }

    @Test func aFailedCallEndsTheUpdateOnAllWorkers() async throws {
        try await UpdateFixture.with(engines: { _ in [] }) { fixture, _ in
            let source = try TemporaryDirectory()
            _ = try await compose(fixture, source)
            let engine = fixture.engine
            let opened = try await engine.openUpdate(
                fixture.name, workers: ["CPU-0", "CPU-0"], calls: 2, timeoutSeconds: 60)
            #expect(Set(opened.sockets).count == 2)
            _ = try await engine.reportCall(1, of: opened.update, error: nil)
            #expect(
                await code { _ = try await engine.reportCall(1, of: opened.update, error: nil) }
                    == .busy)
            #expect(
                await code { _ = try await engine.reportCall(2, of: opened.update, error: nil) }
                    == .invalidArgument)
            let start = ContinuousClock.now
            _ = try await engine.reportCall(0, of: opened.update, error: "no such host")
            let ended = try await engine.update(opened.update, waitingSeconds: 60)
            #expect(start.duration(to: .now) < .seconds(20))
            #expect(ended.error?.code == "engine_failed")
            #expect(ended.error?.message.contains("no such host") == true)
            // It is over: what comes late changes nothing.
            let late = try await engine.reportCall(0, of: opened.update, error: nil)
            #expect(late.state == .failed)
        }
    }

    @Test func callsThatSucceedWithoutWorkersFail() async throws {
        try await UpdateFixture.with(engines: { _ in [] }) { fixture, _ in
            let source = try TemporaryDirectory()
            _ = try await compose(fixture, source)
            let opened = try await fixture.engine.openUpdate(
                fixture.name, workers: ["CPU-0"], calls: 1, timeoutSeconds: 60)
            _ = try await fixture.engine.reportCall(0, of: opened.update, error: nil)
            let ended = try await fixture.engine.update(opened.update, waitingSeconds: 60)
            #expect(ended.error?.code == "worker_lost", "\(ended)")
        }
    }

    @Test func whatCannotBeComposedOrOpenedIsRefused() async throws {
        try await UpdateFixture.with(engines: { _ in [] }) { fixture, _ in
            let source = try TemporaryDirectory()
            let (catalog, parts) = try await compose(fixture, source)
            let engine = fixture.engine
            let more = try names("again", "other", "absent")
            let file = "\(source.path)/\(catalog.shards[0].name)"
            try await engine.register(more[0], paths: [file])
            #expect(
                await code { try await engine.compose(more[1], of: [parts[0], more[0]]) }
                    == .invalidCheckpoint)
            #expect(await code { try await engine.compose(more[1], of: [more[2]]) } == .notFound)
            #expect(
                await code { try await engine.compose(parts[0], of: [parts[1]]) } == .alreadyExists)
            for wrong in [[], [parts[0], parts[0]], [more[1]], [fixture.name]] {
                #expect(
                    await code { try await engine.compose(more[1], of: wrong) } == .invalidArgument)
            }
            for workers in [[], ["CPU-x"], ["GPU-00000000-0000-0000-0000-000000000000"]] {
                #expect(
                    await code {
                        _ = try await engine.openUpdate(
                            fixture.name, workers: workers, calls: 1, timeoutSeconds: 1)
                    } == .invalidArgument)
            }
            // Composing anew takes the place of what was there.
            let summary = try await engine.compose(fixture.name, of: [parts[1]])
            #expect(summary.files == 1)
        }
    }
}
