import CheckpointEngine
import CheckpointJSON
import Hummingbird
import HummingbirdTesting
import Testing

@testable import CheckpointControl

@Suite("Routes of updates")
struct UpdateRouteTests {
    /// A port of loopback that nobody listens on.
    private static let deadURL = "http://127.0.0.1:1/collective_rpc"

    @Test func tellsThatTheEngineIsUnreachable() async throws {
        try await ControlFixture.with { fixture in
            let path = try fixture.writeCheckpoint("a")
            try await fixture.application().test(.router) { client in
                try await client.register("x", path)
                let answer = try await client.post(
                    "/v1/checkpoints/x/update",
                    """
                    {"update_url": "\(Self.deadURL)", "ranks": [], \
                    "inference_group_ranks": [0], "timeout": 5, "uds": null}
                    """)
                #expect(answer.status == 503, "\(answer.body)")
                #expect(answer.string("error.code") == "engine_unreachable")
                #expect(answer.string("error.message").contains("127.0.0.1:1"))
                let status = try await client.get("/v1/updates/\(answer.string("update"))")
                #expect(status.status == 200)
                #expect(status.string("state") == "failed")
                #expect(status.string("checkpoint") == "x")
                #expect(status.string("error.code") == "engine_unreachable")
                // The checkpoint is as good as before.
                #expect(try await client.get("/v1/checkpoints/x").string("state") == "ready")
            }
        }
    }

    @Test func passesTheEnginesAnswerOn() async throws {
        try await ControlFixture.with { fixture in
            let path = try fixture.writeCheckpoint("a")
            try await FakeEngine.with(answer: .init(status: 500, text: "worker said: boom")) {
                url in
                try await fixture.application().test(.router) { client in
                    try await client.register("x", path)
                    let answer = try await client.post(
                        "/v1/checkpoints/x/update",
                        "{\"update_url\": \"\(url)\", \"inference_group_ranks\": [0]}")
                    #expect(answer.status == 502, "\(answer.body)")
                    #expect(answer.string("error.code") == "engine_failed")
                    #expect(answer.string("error.cause").contains("worker said: boom"))
                }
            }
        }
    }

    @Test func endsAtTheDeadline() async throws {
        try await ControlFixture.with { fixture in
            let path = try fixture.writeCheckpoint("a")
            try await FakeEngine.with(answer: nil) { url in
                try await fixture.application().test(.router) { client in
                    try await client.register("x", path)
                    let start = ContinuousClock.now
                    let answer = try await client.post(
                        "/v1/checkpoints/x/update",
                        """
                        {"update_url": "\(url)", "inference_group_ranks": [0], "timeout": 0.5}
                        """)
                    #expect(start.duration(to: .now) < .seconds(20))
                    #expect([502, 504].contains(answer.status), "\(answer.body)")
                    #expect(
                        ["deadline_exceeded", "worker_lost"].contains(answer.string("error.code")))
                }
            }
        }
    }

    @Test func answersWhileAnUpdateRunsAndCancelsIt() async throws {
        try await ControlFixture.with { fixture in
            let path = try fixture.writeCheckpoint("a")
            try await FakeEngine.with(answer: nil) { url in
                try await fixture.application().test(.router) { client in
                    try await client.register("x", path)
                    let body = """
                        {"update_url": "\(url)", "inference_group_ranks": [0], "wait": false}
                        """
                    let started = try await client.post("/v1/checkpoints/x/update", body)
                    #expect(started.status == 202)
                    let id = started.string("id")
                    #expect(started.headers[.location] == "/v1/updates/\(id)")
                    #expect(try await client.get("/v1/healthz").status == 200)
                    #expect(try await client.get("/v1/updates/\(id)").string("state") == "running")
                    let second = try await client.post("/v1/checkpoints/x/update", body)
                    #expect(second.status == 409)
                    #expect(second.string("error.code") == "busy")
                    #expect(try await client.delete("/v1/checkpoints/x").status == 409)
                    #expect(try await client.delete("/v1/updates/\(id)").status == 202)
                    let ended = try await fixture.engine.finishedUpdate(id)
                    #expect(ended.state == .failed)
                    #expect(ended.error?.code == "cancelled")
                    #expect(try await client.delete("/v1/updates/\(id)").status == 409)
                }
            }
        }
    }

    @Test func opensUpdatesForClients() async throws {
        try await ControlFixture.with { fixture in
            let path = try fixture.writeCheckpoint("a")
            try await fixture.application().test(.router) { client in
                try await client.register("x.rank0", path)
                let parts = try await client.post(
                    "/v1/checkpoints/x/parts", "{\"parts\": [\"x.rank0\"]}")
                #expect(parts.status == 200, "\(parts.body)")
                let opened = try await client.post(
                    "/v1/checkpoints/x/open-update",
                    "{\"workers\": [\"CPU-0\"], \"calls\": 1, \"timeout\": 30, \"alone\": true}")
                #expect(opened.status == 202, "\(opened.body)")
                let id = opened.string("update")
                #expect(opened.headers[.location] == "/v1/updates/\(id)")
                let waiting = try await client.get("/v1/updates/\(id)?wait=0.05")
                #expect(waiting.string("state") == "running")
                #expect(try await client.get("/v1/updates/\(id)?wait=61").status == 400)
                #expect(try await client.get("/v1/updates/\(id)?weight=1").status == 400)
                for (path, body) in [
                    ("0", "{\"error\": 1}"), ("-1", "{}"), ("x", "{}"), ("1", "{}"), ("00", "{}"),
                ] {
                    let answer = try await client.post("/v1/updates/\(id)/calls/\(path)", body)
                    #expect(answer.status == 400, "\(path) \(body)")
                }
                let report = try await client.post(
                    "/v1/updates/\(id)/calls/0", "{\"error\": \"boom\"}")
                #expect(report.status == 200)
                let ended = try await client.get("/v1/updates/\(id)?wait=30")
                #expect(ended.string("error.code") == "engine_failed")
                #expect(ended.string("error.message").contains("boom"))
            }
        }
    }

    @Test(arguments: [
        ("open-update", "{}", 400), ("open-update", "{\"workers\": []}", 400),
        ("open-update", "{\"workers\": [\"CPU-0\"], \"calls\": 0}", 400),
        ("open-update", "{\"workers\": [\"CPU-0\"], \"timeout\": 0}", 400),
        ("open-update", "{\"workers\": [\"CPU-0\"], \"alone\": 1}", 400),
        ("open-update", "{\"workers\": [\"CPU-0\"], \"alone\": null}", 400),
        ("open-update", "{\"workers\": [\"GPU-1\"]}", 400), ("parts", "{}", 400),
        ("parts", "{\"parts\": []}", 400), ("parts", "{\"parts\": [\"../x\"]}", 400),
        ("parts", "{\"parts\": [\"nobody\"]}", 409),
    ])
    func refusesBadBodiesOfClients(route: String, body: String, status: Int) async throws {
        try await ControlFixture.with { fixture in
            let path = try fixture.writeCheckpoint("a")
            try await fixture.application().test(.router) { client in
                try await client.register("x", path)
                let answer = try await client.post("/v1/checkpoints/x/\(route)", body)
                #expect(answer.status == status, "\(answer.body)")
            }
        }
    }

    @Test(arguments: [
        ("{}", 400, "nothing to update"), ("{\"update_url\": null}", 400, "nothing to update"),
        ("{\"update_url\": 1}", 400, "\"update_url\": expected a string"),
        ("{\"update_url\": \"ftp://x\"}", 400, "http"),
        ("{\"update_url\": \"http://x\", \"ranks\": [0, 0]}", 400, "once"),
        (
            "{\"update_url\": \"http://x\", \"ranks\": [0], \"inference_group_ranks\": [1]}", 400,
            "keep one"
        ),
        ("{\"update_url\": \"http://x\", \"ranks\": null}", 400, "\"ranks\""),
        ("{\"update_url\": \"http://x\", \"inference_group_ranks\": [0, 0]}", 400, "once"),
        (
            "{\"update_url\": \"http://x\", \"inference_group_ranks\": [-1]}", 400,
            "an integer from 0 to 65535"
        ),
        (
            "{\"update_url\": \"http://x\", \"ranks\": [9223372036854775807]}", 400,
            "an integer from 0 to 65535"
        ),
        ("{\"update_url\": \"http://x\", \"timeout\": 0}", 400, "\"timeout\""),
        ("{\"update_url\": \"http://x\", \"timeout\": 1e9}", 400, "\"timeout\""),
        ("{\"update_url\": \"http://x\", \"timeout\": \"5\"}", 400, "\"timeout\""),
        ("{\"update_url\": \"http://x\", \"wait\": \"no\"}", 400, "\"wait\""),
        ("{\"update_url\": \"http://x\", \"uds\": \"relative\"}", 400, "relative"),
        (
            "{\"update_url\": \"http://x\", \"instances\": [{\"update_url\": \"http://y\"}]}", 400,
            "exclude"
        ),
        ("{\"instances\": [{}]}", 400, "\"instances[0].update_url\" is missing"),
        (
            "{\"instances\": [{\"update_url\": \"http://x\", \"gpu\": 1}]}", 400,
            "\"instances[0].gpu\""
        ),
        (
            "{\"instances\": [{\"update_url\": \"http://x\", \"workers\": 0}]}", 400,
            "\"instances[0].workers\""
        ),
        (
            "{\"instances\": [{\"update_url\": \"http://x\"}], \"uds\": \"/s\"}", 400,
            "in each entry"
        ),
        ("{\"instances\": [3]}", 400, "\"instances[0]\": expected an object"),
    ])
    func refusesBadBodies(body: String, status: Int, sentence: String) async throws {
        try await ControlFixture.with { fixture in
            let path = try fixture.writeCheckpoint("a")
            try await fixture.application().test(.router) { client in
                try await client.register("x", path)
                let answer = try await client.post("/v1/checkpoints/x/update", body)
                #expect(answer.status == status, "\(answer.body)")
                #expect(answer.string("error.message").contains(sentence), "\(answer.body)")
                #expect(answer["update"] == nil)
            }
        }
    }

    @Test func knowsNoOtherUpdates() async throws {
        try await ControlFixture.with { fixture in
            try await fixture.application().test(.router) { client in
                let unknown = try await client.get("/v1/updates/nothing")
                #expect(unknown.status == 404)
                #expect(try await client.delete("/v1/updates/nothing").status == 404)
                let body = "{\"update_url\": \"\(Self.deadURL)\"}"
                #expect(try await client.post("/v1/checkpoints/x/update", body).status == 404)
            }
        }
    }
}
