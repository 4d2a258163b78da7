import CheckpointEngine
import FoundationEssentials
import Hummingbird
import HummingbirdTesting
import Logging
import Testing

@testable import CheckpointControl

/// A real engine with directories of its own, and the routes over it.
struct ControlFixture: Sendable {
    let engine: CheckpointEngine
    /// For files of the test; on disk.
    let directory: String
    /// On the tmpfs.
    let memoryDirectory: String

    static let token = "0123456789abcdef0123456789abcdef"

    /// Runs the test, shuts the engine down, and checks that it left nothing behind.
    static func with(
        _ test: @Sendable (ControlFixture) async throws -> Void
    ) async throws {
        let name = "control-tests-\(UInt32.random(in: 0...UInt32.max))"
        let files = FileManager.default
        let fixture = ControlFixture(
            engine: try makeEngine("/dev/shm/" + name, "/tmp/" + name),
            directory: "/tmp/" + name, memoryDirectory: "/dev/shm/" + name)
        defer {
            try? files.removeItem(atPath: fixture.directory)
            try? files.removeItem(atPath: fixture.memoryDirectory)
        }
        do {
            try await test(fixture)
        } catch {
            await fixture.engine.shutDown()
            throw error
        }
        await fixture.engine.shutDown()
        let left = try files.contentsOfDirectory(atPath: fixture.memoryDirectory)
        #expect(left.filter { $0.hasPrefix("checkpoint-engine") }.isEmpty)
    }

    private static func makeEngine(_ memory: String, _ runtime: String) throws -> CheckpointEngine {
        for path in [memory, runtime] {
            try FileManager.default.createDirectory(
                atPath: path, withIntermediateDirectories: true)
        }
        return try CheckpointEngine(
            configuration: EngineConfiguration(
                sharedMemoryDirectory: memory, runtimeDirectory: runtime), logger: quiet)
    }

    static var quiet: Logger {
        var logger = Logger(label: "tests")
        logger.logLevel = .critical
        return logger
    }

    func configuration(
        token: String? = nil, bodyByteCountMax: Int = ControlConfiguration.bodyByteCountDefault
    ) -> ControlConfiguration {
        ControlConfiguration(
            address: .tcp(host: "127.0.0.1", port: 0),
            access: token.flatMap(BearerToken.init).map { .tokens(administrator: $0) } ?? .everyone,
            version: "1.2.3", bodyByteCountMax: bodyByteCountMax)
    }

    func application(_ configuration: ControlConfiguration? = nil) -> some ApplicationProtocol {
        let routes = ControlRoutes(
            engine: engine, configuration: configuration ?? self.configuration(),
            logger: Self.quiet)
        return Application(router: routes.makeRouter(), logger: Self.quiet)
    }

    /// Writes a safetensors file of one F32 tensor and returns its path.
    func writeCheckpoint(
        _ name: String, tensor: String = "weight", elements: Int = 16, inMemory: Bool = false
    ) throws -> String {
        let path = "\(inMemory ? memoryDirectory : directory)/\(name).safetensors"
        var header = Array(
            """
            {"\(tensor)":{"dtype":"F32","shape":[\(elements)],\
            "data_offsets":[0,\(elements * 4)]}}
            """.utf8)
        while header.count % 8 != 0 { header.append(UInt8(ascii: " ")) }
        var bytes = (0..<8).map { UInt8(truncatingIfNeeded: header.count >> (8 * $0)) }
        bytes += header
        bytes += (0..<elements * 4).map { UInt8(truncatingIfNeeded: $0) }
        try Data(bytes).write(to: URL(filePath: path))
        return path
    }
}
