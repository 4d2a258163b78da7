import CheckpointEngine
import CheckpointModel
import FoundationEssentials
import HummingbirdTesting
import Testing

@testable import CheckpointControl

@Suite("Engines that updates may call")
struct EngineAllowListTests {
    private func isAllowed(
        _ url: String, _ socket: String? = nil, by list: EngineAllowList = .standard
    ) throws -> Bool {
        let engine = EngineInstance(updateURL: try HTTPURL(url), unixSocketPath: socket)
        do throws(ControlError) {
            try list.check(engine)
            return true
        } catch {
            #expect(error.code == .forbidden)
            #expect(error.message.contains("--allow-engine"))
            return false
        }
    }

    @Test(arguments: [
        ("http://127.0.0.1:8000/collective_rpc", true), ("http://localhost:8000", true),
        ("http://[::1]:8000", true), ("http://127.9.9.9", true), ("http://10.0.0.7:8000", false),
        ("http://127.0.0.1.example.org", false), ("http://localhost.example", false),
        ("http://[::]:8000", false), ("http://0.0.0.0:8000", false),
    ])
    func loopbackIsAllowedFirst(url: String, expected: Bool) throws {
        #expect(try isAllowed(url) == expected)
    }

    @Test(arguments: [
        ("10.0.0.7", "http://10.0.0.7:8000", true), ("10.0.0.7", "http://10.0.0.70:8000", false),
        ("10.0.0.7:8000", "http://10.0.0.7:8000", true),
        ("10.0.0.7:8000", "http://10.0.0.7:8001", false),
        ("10.0.0.7:80", "http://10.0.0.7", true), ("10.0.0.*", "http://10.0.0.7:1", true),
        ("*.engines.svc:8000", "http://a.b.engines.svc:8000", true),
        ("*.engines.svc:8000", "http://engines.svc:8000", false),
        ("Engine", "http://ENGINE:1", true), ("[fd00::7]:8000", "http://[fd00:0::7]:8000", true),
        ("[fd00::7]", "http://[fd00::7]:1", true), ("[fd00::7]", "http://[fd00::8]:1", false),
        // Naming others takes the defaults back.
        ("10.0.0.7", "http://127.0.0.1:8000", false), ("loopback", "http://127.0.0.1:1", true),
        ("own-sockets", "http://127.0.0.1:1", false), ("/run/*", "http://127.0.0.1:1", false),
    ])
    func patternsNameHosts(pattern: String, url: String, expected: Bool) throws {
        let list = EngineAllowList([try #require(EngineAllowList.Pattern(pattern))])
        #expect(try isAllowed(url, by: list) == expected)
    }

    @Test(arguments: ["", "a b", "a/b", "host:", "host:0", "host:99999", ":80", "a:b:80", "ä"])
    func otherPatternsAreRefused(text: String) {
        #expect(EngineAllowList.Pattern(text) == nil)
    }

    @Test(arguments: [
        ("/run/vllm/*.sock", "/run/vllm/0.sock", true),
        ("/run/vllm/*.sock", "/run/vllm/a/b.sock", false),
        ("/run/vllm/*.sock", "/run/docker.sock", false), ("/a*b*c", "/abc", true),
        ("/a*b*c", "/aXbXbXc", true), ("/a*b*c", "/aXc", false), ("/a", "/ab", false),
    ])
    func patternsNameSockets(pattern: String, path: String, expected: Bool) throws {
        let list = EngineAllowList([try #require(EngineAllowList.Pattern(pattern))])
        // The host of an engine on a socket is not looked at.
        #expect(try isAllowed("http://127.0.0.1", path, by: list) == expected)
    }

    @Test func socketsOfThisUserAreAllowedFirst() async throws {
        try await ControlFixture.with { fixture in
            let path = fixture.directory + "/engine.sock"
            let link = fixture.directory + "/link.sock"
            try Data().write(to: URL(filePath: fixture.directory + "/file"))
            try await fixture.serve(.unix(path: path)) { _ in
                try FileManager.default.createSymbolicLink(
                    atPath: link, withDestinationPath: path)
                #expect(try isAllowed("http://x", path))
                #expect(try !isAllowed("http://x", link))
                #expect(try !isAllowed("http://x", fixture.directory + "/file"))
                let missing = EngineInstance(
                    updateURL: try HTTPURL("http://127.0.0.1"),
                    unixSocketPath: fixture.directory + "/nothing")
                let error = #expect(throws: ControlError.self) {
                    try EngineAllowList.standard.check(missing)
                }
                #expect(error?.code == .engine(.engineUnreachable))
            }
        }
    }

    @Test func anUpdateOfAnotherEngineIsRefused() async throws {
        try await ControlFixture.with { fixture in
            let path = try fixture.writeCheckpoint("a")
            try await fixture.application().test(.router) { client in
                try await client.register("x", path)
                for body in [
                    #"{"update_url": "http://10.0.0.7:8000"}"#,
                    #"{"instances": [{"update_url": "http://127.0.0.1:1"}, {"update_url": "http://h"}]}"#,
                ] {
                    let answer = try await client.post("/v1/checkpoints/x/update", body)
                    #expect(answer.status == 403, "\(answer.body)")
                }
            }
        }
    }
}
