import CheckpointEngine
import CheckpointJSON
import FoundationEssentials
import Glibc
import Hummingbird
import HummingbirdTesting
import Testing

@testable import CheckpointControl

@Suite("The server")
struct ControlServerTests {
    @Test func theSocketIsPrivateAndGoesWithTheServer() async throws {
        try await ControlFixture.with { fixture in
            let path = fixture.directory + "/control.sock"
            try await fixture.serve(.unix(path: path)) { address in
                #expect(address == .unix(path: path))
                var status = stat()
                // SAFETY: the bridged string and `status` outlive the call.
                #expect(unsafe lstat(path, &status) == 0)
                #expect(status.st_mode == S_IFSOCK | 0o600)
                // A second server leaves the first alone.
                let error = await #expect(throws: ControlError.self) {
                    try await fixture.serve(.unix(path: path)) { _ in }
                }
                #expect(error?.code == .listenFailed)
                #expect(error?.message.contains("already") == true)
                #expect(FileManager.default.fileExists(atPath: path))
            }
            #expect(!FileManager.default.fileExists(atPath: path))
        }
    }

    @Test func theSocketOfAKilledServerIsReplaced() async throws {
        try await ControlFixture.with { fixture in
            let path = fixture.directory + "/first.sock"
            let stale = fixture.directory + "/stale.sock"
            try await fixture.serve(.unix(path: path)) { _ in
                // Out of the server's reach, as if it could not clean up.
                try FileManager.default.moveItem(atPath: path, toPath: stale)
            }
            #expect(FileManager.default.fileExists(atPath: stale))
            try await fixture.serve(.unix(path: stale)) { address in
                #expect(address == .unix(path: stale))
            }
            #expect(!FileManager.default.fileExists(atPath: stale))
        }
    }

    @Test func filesThatAreNoSocketsAreKept() async throws {
        try await ControlFixture.with { fixture in
            let path = fixture.directory + "/precious"
            try Data([1, 2, 3]).write(to: URL(filePath: path))
            let error = await #expect(throws: ControlError.self) {
                try await fixture.serve(.unix(path: path)) { _ in }
            }
            #expect(error?.message.contains("is no socket") == true)
            #expect(FileManager.default.contents(atPath: path) == Data([1, 2, 3]))
        }
    }

    @Test func pathsThatDoNotFitAreRefused() async throws {
        try await ControlFixture.with { fixture in
            let path = "/tmp/" + String(repeating: "s", count: 103)
            let error = await #expect(throws: ControlError.self) {
                try await fixture.serve(.unix(path: path)) { _ in }
            }
            #expect(error?.message.contains("108 bytes") == true)
        }
    }

    @Test func aTakenPortIsTold() async throws {
        try await ControlFixture.with { fixture in
            try await fixture.serve(.tcp(host: "127.0.0.1", port: 0)) { address in
                let error = await #expect(throws: ControlError.self) {
                    try await fixture.serve(address) { _ in }
                }
                #expect(error?.code == .listenFailed)
                #expect(error?.message.contains("\(address)") == true)
            }
        }
    }

    @Test func anUpdateGoesOnWhenItsClientGoesAway() async throws {
        try await ControlFixture.with { fixture in
            let path = try fixture.writeCheckpoint("a")
            try await FakeEngine.with(answer: nil) { url in
                try await fixture.serve(.tcp(host: "127.0.0.1", port: 0)) { address in
                    guard case .tcp(let host, let port) = address else { return }
                    try await fixture.register("x", path)
                    let body = "{\"update_url\": \"\(url)\", \"inference_group_ranks\": [0]}"
                    let client = TestClient(host: host, port: port)
                    client.connect()
                    try await client.executeAndDontWaitForResponse(
                        TestClient.Request(
                            "/v1/checkpoints/x/update", method: .post,
                            authority: "localhost", body: ByteBuffer(string: body)))
                    try await fixture.waitForUpdates(running: 1)
                    try await client.shutdown()
                    // Long enough for the server to see that the connection is gone.
                    try await Task.sleep(for: .milliseconds(300))
                    #expect(await fixture.engine.statistics().updatesRunning == 1)
                    await fixture.engine.shutDown()
                }
            }
        }
    }
}

extension ControlFixture {
    /// Runs a server until the test is over.
    func serve(
        _ address: ControlAddress,
        _ test: @escaping @Sendable (ControlAddress) async throws -> Void
    ) async throws {
        let (listening, continuation) = AsyncStream.makeStream(of: ControlAddress.self)
        let server = try ControlServer(
            engine: engine,
            configuration: ControlConfiguration(address: address, version: "1"),
            logger: Self.quiet
        ) { address in
            continuation.yield(address)
        }
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask {
                defer { continuation.finish() }
                do {
                    try await server.run()
                } catch is CancellationError {}
            }
            for await address in listening {
                try await test(address)
                break
            }
            group.cancelAll()
            // The failure of a server that never listened.
            try await group.waitForAll()
        }
    }

    /// Registers without HTTP.
    func register(_ name: String, _ path: String) async throws {
        let routes = application()
        try await routes.test(.router) { client in try await client.register(name, path) }
    }

    /// Waits until so many updates run; a minute at most.
    func waitForUpdates(running count: Int) async throws {
        for _ in 0..<6000 {
            if await engine.statistics().updatesRunning == count { return }
            try await Task.sleep(for: .milliseconds(10))
        }
        Issue.record("\(count) updates never ran at once")
    }
}
