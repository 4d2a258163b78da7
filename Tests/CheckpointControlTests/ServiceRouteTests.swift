import CheckpointJSON
import Hummingbird
import HummingbirdTesting
import Testing

@testable import CheckpointControl

@Suite("Routes about the daemon, and access")
struct ServiceRouteTests {
    @Test func tellsHealthAndVersion() async throws {
        try await ControlFixture.with { fixture in
            try await fixture.application().test(.router) { client in
                let health = try await client.get("/v1/healthz")
                #expect(health.status == 200)
                #expect(health["status"] == .string("ok"))
                #expect(health.headers[.contentType] == "application/json")
                #expect(try await client.get("/v1/version")["version"] == .string("1.2.3"))
                let head = try await client.execute(uri: "/v1/healthz", method: .head)
                #expect(head.status == .ok)
            }
        }
    }

    @Test func writesMetricsOfTheEngine() async throws {
        try await ControlFixture.with { fixture in
            let path = try fixture.writeCheckpoint("a", elements: 32)
            try await fixture.application().test(.router) { client in
                try await client.register("x", path)
                let answer = try await client.execute(uri: "/metrics", method: .get)
                #expect(answer.status == .ok)
                #expect(
                    answer.headers[.contentType]?.hasPrefix("text/plain; version=0.0.4") == true)
                let lines = String(buffer: answer.body).split(separator: "\n")
                #expect(lines.contains("checkpoint_engine_checkpoints 1"))
                #expect(lines.contains("checkpoint_engine_registrations_total 1"))
                #expect(lines.contains("checkpoint_engine_registered_bytes_total 128"))
                #expect(lines.contains("checkpoint_engine_updates_running 0"))
                #expect(lines.contains("checkpoint_engine_build_info{version=\"1.2.3\"} 1"))
            }
        }
    }

    @Test func refusesUnknownPathsAndMethodsInJSON() async throws {
        try await ControlFixture.with { fixture in
            try await fixture.application().test(.router) { client in
                let unknown = try await client.get("/v2/nothing")
                #expect(unknown.status == 404)
                #expect(unknown.string("error.code") == "no_route")
                let put = try Answer(
                    try await client.execute(uri: "/v1/checkpoints/x", method: .put))
                #expect(put.status == 405)
                #expect(put.string("error.code") == "method_not_allowed")
                #expect(put.headers[.allow] == "DELETE, GET")
            }
        }
    }

    @Test func asksForTheToken() async throws {
        try await ControlFixture.with { fixture in
            let token = ControlFixture.token
            let guarded = fixture.configuration(token: token)
            try await fixture.application(guarded).test(.router) { client in
                let refused = try await client.get("/v1/checkpoints")
                #expect(refused.status == 401)
                #expect(refused.headers[.wwwAuthenticate] == "Bearer")
                #expect(refused.string("error.code") == "unauthorized")
                #expect(try await client.get("/metrics").status == 401)
                #expect(try await client.get("/v2/nothing").status == 401)
                #expect(try await client.get("/v1/healthz").status == 200)
                for (value, status) in [
                    ("Bearer \(token)", 200), ("bearer \(token)", 200), ("Bearer \(token)x", 401),
                    ("Bearer \(token.dropLast())", 401), ("Basic \(token)", 401), ("Bearer ", 401),
                ] {
                    let answer = try await client.execute(
                        uri: "/v1/checkpoints", method: .get, headers: [.authorization: value])
                    #expect(answer.status.code == status, "\(value)")
                }
            }
        }
    }

    @Test func refusesWebPages() async throws {
        try await ControlFixture.with { fixture in
            try await fixture.application().test(.router) { client in
                let answer = try Answer(
                    try await client.execute(
                        uri: "/v1/checkpoints/x", method: .delete,
                        headers: [.origin: "https://example.org"]))
                #expect(answer.status == 403)
                #expect(answer.string("error.code") == "forbidden")
            }
        }
    }
}
