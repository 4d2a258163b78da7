import CheckpointModel
import CheckpointPlan
import CheckpointTesting
import CheckpointTransfer
import Glibc
import Logging
import Testing

@testable import CheckpointPull

/// The reader's side of a pull: memory of its own, and a fake agent.
struct PullFixture: Sendable {
    let agent: FakeTransferAgent
    let memory: TemporaryDirectory
    let client = SourceClient()
    let name: CheckpointName

    init() throws {
        agent = try FakeTransferAgent()
        memory = try TemporaryDirectory(in: "/dev/shm")
        name = try #require(CheckpointName("step"))
    }

    static let quiet = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }

    /// What a pull left behind.
    struct Outcome {
        let error: PullError?
        let shards: [[UInt8]]
        let bytesBySource: [String: Int]
        let feed: PullFeed
        let checksums: ChunkChecksums
    }

    func configuration(_ environment: [String: String] = [:]) -> AgentConfiguration {
        var configuration = AgentConfiguration(host: "127.0.0.1", protocolName: .tcp)
        configuration.arguments = agent.arguments
        configuration.environment = environment
        return configuration
    }

    func request(
        _ sources: [FakeSource], stall: Duration = .seconds(20), reader: String? = nil,
        token: String? = nil, content: String? = nil
    ) throws -> PullRequest {
        PullRequest(
            checkpoint: name,
            sources: try sources.map { try SourceAddress(url: $0.url, token: token) },
            reader: reader, content: content, stallTimeout: stall)
    }

    func offer(_ request: PullRequest) async throws(PullError) -> PullOffer {
        try await PullOffer.ask(request, client: client)
    }

    func target(_ offer: PullOffer) throws -> PullRun.Target {
        let locations = try offer.catalog.shards.enumerated().map { index, shard in
            try Self.location(
                memory.write([UInt8](repeating: 0, count: max(1, shard.byteCount)), to: "\(index)"))
        }
        return PullRun.Target(
            .whole(offer.order), locations: locations, feed: PullFeed(order: offer.order),
            checksums: ChunkChecksums(grid: offer.order.grid))
    }

    static func location(_ path: String, dataOffset: Int = 0) throws -> SegmentLocation {
        var status = stat()
        try #require(unsafe stat(path, &status) == 0)
        return SegmentLocation(
            path: path, inode: UInt64(status.st_ino), fileByteCount: Int(status.st_size),
            dataOffset: dataOffset)
    }

    /// Runs a whole pull. `meanwhile` runs beside it, with its feed; a pull that it ends is cancelled when it
    /// returns `true`.
    func pull(
        _ request: PullRequest, environment: [String: String] = [:], agentCount: Int = 1,
        meanwhile: @escaping @Sendable (PullFeed) async throws -> Bool = { _ in false }
    ) async throws -> Outcome {
        let offer = try await offer(request)
        let target = try target(offer)
        let agents = SpareAgents(
            configuration(environment), count: agentCount, logger: Self.quiet)
        let run = try PullRun(offer, into: target, agents: agents, logger: Self.quiet)
        let prepared = await Self.error { () throws(PullError) in try await run.prepare() }
        let task = Task { () -> PullError? in
            if let prepared { return prepared }
            do throws(PullError) {
                try await run.run()
                return nil
            } catch {
                return error
            }
        }
        let failure: (any Error)?
        do {
            if try await meanwhile(target.feed) { task.cancel() }
            failure = nil
        } catch {
            task.cancel()
            failure = error
        }
        let error = await task.value
        await agents.stop()
        // The agent is gone, so that nothing changes any more.
        #expect(agent.processes.isEmpty)
        if let failure { throw failure }
        let shards = try zip(target.locations, offer.catalog.shards).map { location, shard in
            Array(try TemporaryDirectory.read(location.path).prefix(shard.byteCount))
        }
        await client.shutDown()
        return Outcome(
            error: error, shards: shards, bytesBySource: await run.bytesBySource,
            feed: target.feed, checksums: target.checksums)
    }

    /// The error of a call, if it has one.
    static func error(of body: () async throws(PullError) -> Void) async -> PullError? {
        do throws(PullError) {
            try await body()
            return nil
        } catch {
            return error
        }
    }

    /// Waits until `isTrue`, half a minute at most.
    static func wait(
        _ what: String, until isTrue: @Sendable () async throws -> Bool
    ) async throws {
        for _ in 0..<3000 {
            if try await isTrue() { return }
            try await Task.sleep(for: .milliseconds(10))
        }
        Issue.record("never: \(what)")
    }
}

extension FakeSource {
    /// Runs the test with sources of this content, and stops them.
    static func with(
        _ contents: [FakeContent], _ fixture: PullFixture,
        _ test: ([FakeSource]) async throws -> Void
    ) async throws {
        var sources: [FakeSource] = []
        for content in contents {
            sources.append(try await FakeSource(content, agent: fixture.agent))
        }
        do {
            try await test(sources)
        } catch {
            for source in sources { await source.stop() }
            throw error
        }
        for source in sources { await source.stop() }
    }
}
