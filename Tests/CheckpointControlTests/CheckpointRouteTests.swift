import CheckpointJSON
import Hummingbird
import HummingbirdTesting
import Testing

@testable import CheckpointControl

@Suite("Routes of checkpoints")
struct CheckpointRouteTests {
    @Test func registersDescribesAndForgets() async throws {
        try await ControlFixture.with { fixture in
            let path = try fixture.writeCheckpoint("a")
            try await fixture.application().test(.router) { client in
                let made = try await client.post(
                    "/v1/checkpoints/step-1/files", "{\"files\": [\"\(path)\"], \"consume\": false}"
                )
                #expect(made.status == 200)
                #expect(made["name"] == .string("step-1"))
                #expect(made["state"] == .string("ready"))
                #expect(made["bytes"] == .integer(64))
                #expect(made["tensors"] == .integer(1))
                #expect(made["dtypes.F32"] == .integer(1))
                let one = try await client.get("/v1/checkpoints/step-1")
                #expect(one.body == made.body)
                let all = try await client.get("/v1/checkpoints")
                #expect(all["checkpoints"] == .array([made.body]))
                let gone = try await client.delete("/v1/checkpoints/step-1?release_memory=true")
                #expect(gone.status == 200)
                #expect(gone["released_memory"] == .bool(true))
                let missing = try await client.get("/v1/checkpoints/step-1")
                #expect(missing.status == 404)
                #expect(missing.string("error.code") == "not_found")
                #expect(missing.string("error.message").contains("step-1"))
            }
        }
    }

    @Test func refusesATakenNameAndKeepsItsOwner() async throws {
        try await ControlFixture.with { fixture in
            let first = try fixture.writeCheckpoint("a", elements: 4)
            let second = try fixture.writeCheckpoint("b", elements: 8)
            try await fixture.application().test(.router) { client in
                try await client.register("x", first)
                let refused = try await client.post(
                    "/v1/checkpoints/x/files", "{\"files\": [\"\(second)\"]}")
                #expect(refused.status == 409)
                #expect(refused.string("error.code") == "already_exists")
                #expect(try await client.get("/v1/checkpoints/x")["bytes"] == .integer(16))
            }
        }
    }

    @Test func tellsWhichFileIsWrong() async throws {
        try await ControlFixture.with { fixture in
            try await fixture.application().test(.router) { client in
                let path = fixture.directory + "/absent.safetensors"
                let answer = try await client.post(
                    "/v1/checkpoints/x/files", "{\"files\": [\"\(path)\"]}")
                #expect(answer.status == 422)
                #expect(answer.string("error.code") == "invalid_checkpoint")
                #expect(answer.string("error.message").contains("absent.safetensors"))
                #expect(try await client.get("/v1/checkpoints")["checkpoints"] == .array([]))
            }
        }
    }

    @Test func gathersMetas() async throws {
        try await ControlFixture.with { fixture in
            let path = try fixture.writeCheckpoint("a", tensor: "layer.weight")
            try await fixture.application().test(.router) { client in
                #expect(try await client.get("/v1/metas").body == .object(JSONObject()))
                try await client.register("x", path)
                let gathered = try await client.post("/v1/checkpoints/x/gather-metas")
                #expect(gathered.status == 200)
                #expect(gathered["tensors"] == .integer(1))
                #expect(gathered["ranks"] == .integer(1))
                let metas = try await client.get("/v1/metas")
                guard case .array(let buffers)? = metas["0.memory_buffer_metas_list"] else {
                    Issue.record("no buffers in \(metas.body)")
                    return
                }
                #expect(buffers.count == 1)
                #expect("\(buffers)".contains("layer.weight"))
                let other = try await client.post("/v1/checkpoints/y/gather-metas", "{}")
                #expect(other.status == 404)
            }
        }
    }

    @Test(arguments: [
        ("", "empty"), ("[]", "expected a JSON object"), ("{\"files\":", "not valid JSON"),
        ("{}", "\"files\" is missing"), ("{\"files\": \"a\"}", "expected an array of strings"),
        ("{\"files\": [7]}", "\"files[0]\": expected a string, got the integer 7"),
        ("{\"files\": []}", "\"files\" is empty"), ("{\"files\": [\"\"]}", "\"files[0]\""),
        ("{\"files\": [\"a\\u0000b\"]}", "without the byte zero"),
        ("{\"files\": [\"/a\"], \"files\": [\"/b\"]}", "\"files\""),
        ("{\"files\": [\"/a\"], \"consume\": 1}", "\"consume\": expected true or false"),
        ("{\"files\": [\"/a\"], \"mode\": 1}", "\"mode\" is unknown"),
    ])
    func refusesBadBodies(body: String, sentence: String) async throws {
        try await ControlFixture.with { fixture in
            try await fixture.application().test(.router) { client in
                let answer = try await client.post("/v1/checkpoints/x/files", body)
                #expect(answer.status == 400)
                #expect(answer.string("error.code") == "invalid_argument")
                #expect(answer.string("error.message").contains(sentence), "\(answer.body)")
                #expect(answer["error.cause"] != nil)
            }
        }
    }

    @Test(arguments: [".hidden", "a%2Fb", "a%00", String(repeating: "n", count: 129)])
    func refusesBadNames(name: String) async throws {
        try await ControlFixture.with { fixture in
            try await fixture.application().test(.router) { client in
                let answer = try await client.get("/v1/checkpoints/\(name)")
                #expect(answer.status == 400)
                #expect(answer.string("error.message").contains("is not allowed"))
            }
        }
    }

    @Test func refusesBodiesOverTheLimit() async throws {
        try await ControlFixture.with { fixture in
            let small = fixture.configuration(bodyByteCountMax: 100)
            try await fixture.application(small).test(.router) { client in
                let path = String(repeating: "p", count: 200)
                let answer = try await client.post(
                    "/v1/checkpoints/x/files", "{\"files\": [\"\(path)\"]}")
                #expect(answer.status == 413)
                #expect(answer.string("error.message").contains("more than 100 bytes"))
            }
        }
    }

    @Test func refusesUnknownParameters() async throws {
        try await ControlFixture.with { fixture in
            try await fixture.application().test(.router) { client in
                let uris = ["/v1/checkpoints?x=1", "/v1/healthz?deep=true"]
                for uri in uris { #expect(try await client.get(uri).status == 400) }
                let answer = try await client.delete("/v1/checkpoints/x?release_memory=maybe")
                #expect(answer.status == 400)
                #expect(answer.string("error.message").contains("release_memory"))
            }
        }
    }
}
