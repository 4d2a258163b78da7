import CheckpointJSON
import CheckpointPull
import CheckpointTesting
import Hummingbird
import HummingbirdTesting
import Testing

@testable import CheckpointControl

/// The routes that other hosts use, on a daemon whose agent is a fake one.
@Suite("Routes of leases", .serialized, .timeLimit(.minutes(2)))
struct LeaseRouteTests {
    private func with(
        _ test: @escaping @Sendable (PullFixture, any TestClientProtocol) async throws -> Void
    ) async throws {
        try await PullFixture.with(1) { fixture in
            let routes = ControlRoutes(
                engine: fixture.daemons[0].engine,
                configuration: ControlConfiguration(
                    address: .tcp(host: "127.0.0.1", port: 0), version: "1"),
                logger: ControlFixture.quiet)
            try await Application(router: routes.makeRouter(), logger: ControlFixture.quiet)
                .test(.router) { client in try await test(fixture, client) }
        }
    }

    @Test func aLeaseFromItsBeginToItsEnd() async throws {
        try await with { fixture, client in
            let shards = try await fixture.register(at: [0])
            let lease = try await client.post(
                "/v1/checkpoints/step/leases", #"{"reader":"http://reader:1"}"#)
            #expect(lease.status == 200, "\(lease.body)")
            #expect(lease["version"] == .integer(2) && lease["active"] == .bool(true))
            #expect(lease["arrived"] == .null && lease["readers"] == .array([]))
            #expect(lease["chunk_bytes"] == .integer(1 << 20))
            #expect(lease["expires_in"] == .number(10) || lease["expires_in"] == .integer(10))
            let id = lease.string("lease")
            let second = try await client.post("/v1/checkpoints/step/leases", "{}")
            #expect(second["active"] == .bool(false))
            #expect(second["readers"] == .array([.string("http://reader:1")]))
            #expect(second["digest"] == lease["digest"])
            #expect(second["incarnation"] == lease["incarnation"])
            let renewed = try await client.post("/v1/leases/\(id)")
            #expect(renewed.status == 200 && renewed["endpoints"] == lease["endpoints"])
            #expect(renewed["lease"] == nil)
            let catalog = try await client.get("/v1/leases/\(id)/catalog")
            #expect(catalog.status == 200)
            let chunkCount = shards.reduce(0) { $0 + ($1.count + (1 << 20) - 1) / (1 << 20) }
            try await client.execute(
                uri: "/v1/leases/\(id)/checksums/0/\(chunkCount)", method: .get
            ) { response in
                #expect(response.status == .ok)
                #expect(response.headers[.contentType] == "application/octet-stream")
                #expect(response.body.readableBytes == 4 * chunkCount)
            }
            // All checksums are known by now, and so is what the bytes are.
            #expect(lease["content"] == .null)
            let known = try await client.post("/v1/leases/\(id)", #"{"received":1048576}"#)
            #expect(known.status == 200 && !known.string("content").isEmpty)
            for wrong in ["-1", "1.5", #""1""#, "9223372036854775807"] {
                let answer = try await client.post("/v1/leases/\(id)", #"{"received":\#(wrong)}"#)
                #expect(answer.status == 400)
            }
            let ended = try await client.delete("/v1/leases/\(id)")
            #expect(ended.status == 200 && ended.string("lease") == id)
            #expect(
                try await client.post("/v1/leases/\(second.string("lease"))")["active"]
                    == .bool(true))
            for answer in [
                try await client.delete("/v1/leases/\(id)"),
                try await client.post("/v1/leases/\(id)"),
                try await client.get("/v1/leases/\(id)/catalog"),
                try await client.get("/v1/leases/\(id)/checksums/0/1"),
            ] {
                #expect(answer.status == 404)
                #expect(answer.string("error.code") == "not_found")
                #expect(answer.string("error.message").contains(id))
            }
        }
    }

    /// The next version is written over files that are used in place, before or while a reader asks.
    @Test func aFileThatBecomesShorterIsTold() async throws {
        try await with { fixture, client in
            let folder = try TemporaryDirectory(in: "/dev/shm")
            try await fixture.register(at: [0], byteCounts: [3_000_000], in: folder)
            let lease = try await client.post("/v1/checkpoints/step/leases", "{}")
            #expect(lease.status == 200, "\(lease.body)")
            let name = try #require(folder.names.first)
            try folder.write([], to: name)
            let answer = try await client.get(
                "/v1/leases/\(lease.string("lease"))/checksums/0/2")
            #expect(answer.status == 422)
            #expect(answer.string("error.code") == "invalid_checkpoint")
            #expect(answer.string("error.message").contains(name))
        }
    }

    private static let wrongNumbers = [
        "0/0", "0/-1", "-1/1", "0/a", "a/1", "0/1.0", "+0/1", "00/1", "0/99999", "6/1",
        "9223372036854775807/1", "1/9223372036854775807", "99999999999999999999/1",
    ]

    @Test func wrongNumbersAreRefused() async throws {
        try await with { fixture, client in
            try await fixture.register(at: [0])
            let id = try await client.post("/v1/checkpoints/step/leases", "{}").string("lease")
            for path in Self.wrongNumbers {
                let answer = try await client.get("/v1/leases/\(id)/checksums/\(path)")
                #expect(answer.status == 400, "\(path)")
                #expect(answer.string("error.code") == "invalid_argument")
            }
        }
    }

    private static let wrongReaders = [
        (#"{"reader":"ftp://a"}"#, "not of the form http://HOST:PORT"),
        (#"{"reader":7}"#, "reader"),
        (#"{"reader":"http://a/b"}"#, "a daemon is at http://HOST:PORT"), (#"{"more":1}"#, "more"),
        ("", "empty"),
        ("[]", "expected a JSON object"),
    ]

    @Test func wrongReadersAreRefused() async throws {
        try await with { fixture, client in
            try await fixture.register(at: [0], byteCounts: [10])
            for (body, sentence) in Self.wrongReaders {
                let answer = try await client.post("/v1/checkpoints/step/leases", body)
                #expect(answer.status == 400)
                #expect(answer.string("error.code") == "invalid_argument")
                #expect(answer.string("error.message").contains(sentence), "\(answer.body)")
            }
        }
    }

    @Test func whatIsNotThereIsNotFound() async throws {
        try await with { _, client in
            let lease = try await client.post("/v1/checkpoints/step/leases", "{}")
            #expect(lease.status == 404)
            #expect(lease.string("error.message").contains("step"))
            #expect(try await client.post("/v1/leases/none").status == 404)
            let long = String(repeating: "l", count: 129)
            #expect(try await client.post("/v1/leases/\(long)").status == 400)
            #expect(try await client.post("/v1/leases/none", #"{"a":1}"#).status == 400)
            #expect(try await client.get("/v1/leases/none/catalog?x=1").status == 400)
        }
    }

    private static let otherMethods = [
        ("/v1/checkpoints/step/leases", HTTPRequest.Method.get, "POST"),
        ("/v1/checkpoints/step/pull", .get, "POST"), ("/v1/leases/a", .get, "DELETE, POST"),
        ("/v1/leases/a/catalog", .post, "GET"), ("/v1/leases/a/checksums/0/1", .delete, "GET"),
        ("/v1/metas", .delete, "GET, POST"),
    ]

    @Test func otherMethodsAreRefused() async throws {
        try await with { _, client in
            for (uri, method, allowed) in Self.otherMethods {
                let answer = try Answer(try await client.execute(uri: uri, method: method))
                #expect(answer.status == 405)
                #expect(answer.headers[.allow] == allowed)
            }
        }
    }

    // MARK: Pulls

    @Test func aPullIsAnswered() async throws {
        try await PullFixture.with(2) { fixture in
            try await fixture.register(at: [0])
            let routes = ControlRoutes(
                engine: fixture.daemons[1].engine,
                configuration: ControlConfiguration(
                    address: .tcp(host: "127.0.0.1", port: 0), version: "1"),
                logger: ControlFixture.quiet)
            try await Application(router: routes.makeRouter(), logger: ControlFixture.quiet)
                .test(.router) { client in
                    let source =
                        #"{"url":"\#(fixture.daemons[0].url)","token":"\#(PullFixture.token)"}"#
                    let done = try await client.post(
                        "/v1/checkpoints/mine/pull",
                        #"{"sources":[\#(source)],"remote_name":"step","stall_timeout":10.5}"#)
                    #expect(done.status == 200, "\(done.body)")
                    #expect(done.string("state") == "ready" && done.string("name") == "mine")
                    #expect(done["bytes"] == .integer(5_000_005))
                    let taken = try await client.post(
                        "/v1/checkpoints/mine/pull", #"{"sources":[\#(source)]}"#)
                    #expect(taken.status == 409)
                    let begun = try await client.post(
                        "/v1/checkpoints/step/pull", #"{"sources":[\#(source)],"wait":false}"#)
                    #expect(begun.status == 202)
                    let unknown = try await client.post(
                        "/v1/checkpoints/x/pull", #"{"sources":[\#(source)]}"#)
                    #expect(unknown.status == 502)
                    #expect(unknown.string("error.code") == "source_failed")
                }
        }
    }

    private static let wrongPulls = [
        ("{}", "no source was named"), (#"{"sources":[]}"#, "no source was named"),
        (#"{"sources":["http://a"]}"#, "sources[0]"), (#"{"sources":[{}]}"#, "url"),
        (#"{"sources":[{"url":"a"}]}"#, "not of the form http://HOST:PORT"),
        (#"{"sources":[{"url":"http://a","x":1}]}"#, "sources[0].x"),
        (#"{"sources":[{"url":"http://a","token":1}]}"#, "token"),
        (#"{"sources":[{"url":"http://a"}],"stall_timeout":0}"#, "stall_timeout"),
        (#"{"sources":[{"url":"http://a"}],"stall_timeout":86401}"#, "stall_timeout"),
        (#"{"sources":[{"url":"http://a"}],"remote_name":"a/b"}"#, "remote_name"),
        (#"{"sources":[{"url":"http://a"}],"wait":1}"#, "wait"),
        (#"{"sources":[{"url":"http://a"}],"more":1}"#, "more"),
    ]

    @Test func wrongPullsAreRefused() async throws {
        try await with { _, client in
            for (body, sentence) in Self.wrongPulls {
                let answer = try await client.post("/v1/checkpoints/x/pull", body)
                #expect(answer.status == 400, "\(answer.body)")
                #expect(answer.string("error.message").contains(sentence), "\(answer.body)")
            }
        }
    }

    @Test func metasAreLoaded() async throws {
        try await with { fixture, client in
            let text = """
                {"0":{"p2p_store_addr":null,"rdma_device":"","memory_buffer_metas_list":[],
                "checkpoint_engine":{"url":"http://a:1","checkpoint":"c"}}}
                """
            let loaded = try await client.post("/v1/metas", text)
            #expect(loaded.status == 200)
            #expect(loaded["sources"] == .array([.string("http://a:1")]))
            let told = try await client.get("/v1/metas")
            #expect(told.string("0.checkpoint_engine.url") == "http://a:1")
            for wrong in ["", "[]", "{\"a\":{}}", "{\"0\":1}"] {
                #expect(try await client.post("/v1/metas", wrong).status == 400)
            }
            // What was refused has changed nothing.
            #expect(try await client.get("/v1/metas").body == told.body)
            try await fixture.register(at: [0], byteCounts: [10])
            #expect(try await client.post("/v1/checkpoints/step/gather-metas").status == 200)
            let ours = try await client.get("/v1/metas")
            #expect(ours.string("0.checkpoint_engine.checkpoint") == "step")
        }
    }
}
