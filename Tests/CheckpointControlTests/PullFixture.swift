import CheckpointEngine
import CheckpointModel
import CheckpointPull
import CheckpointTesting
import CheckpointTransfer
import FoundationEssentials
import Glibc
import Hummingbird
import Logging
import Testing

@testable import CheckpointControl

/// Several real daemons in this process, each with its own engine and HTTP server; their agents are fake ones.
struct PullFixture: Sendable {
    struct Daemon: Sendable {
        let engine: CheckpointEngine
        let url: String
        let memory: TemporaryDirectory
    }

    static let token = "0123456789abcdef0123456789abcdef"
    let agent: FakeTransferAgent
    let disk: TemporaryDirectory
    let daemons: [Daemon]

    /// Runs the test with so many daemons, and checks that they leave nothing behind.
    static func with(
        _ count: Int, environment: [String: String] = [:],
        _ test: @Sendable (PullFixture) async throws -> Void
    ) async throws {
        let agent = try FakeTransferAgent()
        let disk = try TemporaryDirectory()
        try await withThrowingTaskGroup(of: Void.self) { group in
            var daemons: [Daemon] = []
            var failure: (any Error)?
            do {
                for _ in 0..<count {
                    daemons.append(try await start(agent, environment, disk, &group))
                }
                try await test(PullFixture(agent: agent, disk: disk, daemons: daemons))
            } catch {
                failure = error
            }
            for daemon in daemons { await daemon.engine.shutDown() }
            group.cancelAll()
            while let result = await group.nextResult() {
                if case .failure(let error) = result, !(error is CancellationError) { throw error }
            }
            for directory in daemons.map(\.memory) + [disk] {
                #expect(directory.privateNames.isEmpty)
            }
            #expect(agent.processes.isEmpty)
            if let failure { throw failure }
        }
    }

    private static func start(
        _ agent: FakeTransferAgent, _ environment: [String: String], _ disk: TemporaryDirectory,
        _ group: inout ThrowingTaskGroup<Void, any Error>
    ) async throws -> Daemon {
        // The engine is told its URL before the server has a port: the port is found first.
        let port = try freePort()
        let memory = try TemporaryDirectory(in: "/dev/shm")
        var configuration = AgentConfiguration(host: "127.0.0.1", protocolName: .tcp)
        configuration.arguments = agent.arguments
        configuration.environment = environment
        let url = "http://127.0.0.1:\(port)"
        let engine = try CheckpointEngine(
            configuration: EngineConfiguration(
                sharedMemoryDirectory: memory.path, runtimeDirectory: disk.path,
                zeroMQLibraryNames: ZeroMQNames.all,
                pull: PullConfiguration(agent: configuration, advertisedURL: try HTTPURL(url))),
            logger: ControlFixture.quiet)
        let (listening, continuation) = AsyncStream.makeStream(of: ControlAddress.self)
        let server = try ControlServer(
            engine: engine,
            configuration: ControlConfiguration(
                address: .tcp(host: "127.0.0.1", port: port),
                access: .tokens(administrator: try #require(BearerToken(token))), version: "1"),
            logger: ControlFixture.quiet
        ) { continuation.yield($0) }
        group.addTask {
            defer { continuation.finish() }
            try await server.run()
        }
        var iterator = listening.makeAsyncIterator()
        guard await iterator.next() != nil else {
            await engine.shutDown()
            throw EngineError(.system, "the server does not listen on \(url)")
        }
        return Daemon(engine: engine, url: url, memory: memory)
    }

    /// A port that was free a moment ago, below those that the system gives to clients.
    private static func freePort() throws -> Int {
        for _ in 0..<100 {
            let port = UInt16.random(in: 10_000..<32_000)
            let descriptor = socket(AF_INET, CInt(SOCK_STREAM.rawValue), 0)
            try #require(descriptor >= 0)
            defer { close(descriptor) }
            var address = sockaddr_in()
            address.sin_family = sa_family_t(AF_INET)
            address.sin_port = port.bigEndian
            address.sin_addr.s_addr = in_addr_t(0x7f00_0001).bigEndian
            // SAFETY: the address outlives the call, and has this length.
            let code = unsafe withUnsafePointer(to: &address) { pointer in
                unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { pointer in
                    unsafe bind(
                        descriptor, pointer, socklen_t(MemoryLayout<sockaddr_in>.size))
                }
            }
            if code == 0 { return Int(port) }
        }
        throw EngineError(.system, "no port is free")
    }

    var name: CheckpointName {
        get throws { try #require(CheckpointName("step")) }
    }

    func address(_ daemon: Int, token: String? = Self.token) throws -> SourceAddress {
        try SourceAddress(url: daemons[daemon].url, token: token)
    }

    /// Writes a checkpoint of random bytes, and registers it at the daemons; returns its bytes.
    @discardableResult
    func register(
        at indices: [Int], byteCounts: [Int] = [3_000_000, 5, 2_000_000],
        seed: UInt64 = .random(in: 0 ... .max), in folder: TemporaryDirectory? = nil
    ) async throws -> [[UInt8]] {
        var generator = SeededGenerator(seed: seed)
        let folder = try folder ?? TemporaryDirectory(in: "/tmp")
        var contents: [[UInt8]] = []
        for (index, byteCount) in byteCounts.enumerated() {
            let bytes = RandomBytes.make(byteCount, using: &generator)
            contents.append(bytes)
            let half = byteCount / 2
            let header =
                #"{"a\#(index)":{"dtype":"U8","shape":[\#(half)],"data_offsets":[0,\#(half)]},"#
                + #""b\#(index)":{"dtype":"U8","shape":[\#(byteCount - half)],"#
                + #""data_offsets":[\#(half),\#(byteCount)]}}"#
            let padded = header + String(repeating: " ", count: (8 - header.utf8.count % 8) % 8)
            try folder.write(
                SafetensorsBuilder.file(header: padded, data: bytes),
                to: "model-\(index + 1)-of-\(byteCounts.count).safetensors")
        }
        for index in indices {
            try await daemons[index].engine.register(name, paths: [folder.path])
        }
        return contents
    }

    /// The bytes that a daemon has in its pool, by size.
    func contents(_ daemon: Int) throws -> [[UInt8]] {
        let memory = daemons[daemon].memory
        var found: [[UInt8]] = []
        for folder in memory.names {
            let path = "\(memory.path)/\(folder)"
            let files = TemporaryDirectory.names(in: path)
            found += try files.map { try TemporaryDirectory.read("\(path)/\($0)") }
            if files.isEmpty, let bytes = try? TemporaryDirectory.read(path) { found.append(bytes) }
        }
        return found
    }

    /// Whether each of the shards lies in the daemon's memory.
    func expect(_ shards: [[UInt8]], at daemon: Int) throws {
        let files = try contents(daemon)
        for shard in shards {
            #expect(files.contains { $0.starts(with: shard) }, "a shard of \(shard.count) bytes")
        }
    }
}
