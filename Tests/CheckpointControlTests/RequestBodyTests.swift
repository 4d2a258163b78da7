import CheckpointModel
import CheckpointEngine
import CheckpointJSON
import Hummingbird
import Testing

@testable import CheckpointControl

@Suite("Request bodies")
struct RequestBodyTests {
    /// Numbers that are the same for the same seed.
    private struct Seeded: RandomNumberGenerator {
        var state: UInt64

        mutating func next() -> UInt64 {
            state &+= 0x9E37_79B9_7F4A_7C15
            var word = state
            word = (word ^ (word >> 30)) &* 0xBF58_476D_1CE4_E5B9
            word = (word ^ (word >> 27)) &* 0x94D0_49BB_1331_11EB
            return word ^ (word >> 31)
        }
    }

    private func value(_ depth: Int, using random: inout Seeded) -> JSONValue {
        switch Int.random(in: 0..<(depth > 0 ? 7 : 5), using: &random) {
        case 0: return .null
        case 1: return .bool(Bool.random(using: &random))
        case 2: return .integer(Int.random(in: -3...70_000, using: &random))
        case 3: return .number(Double.random(in: -1...1e6, using: &random))
        case 4:
            let texts = ["", "/a", "http://h:1", "x\0y", "update_url", "🂡"]
            return .string(texts.randomElement(using: &random) ?? "")
        case 5:
            let count = Int.random(in: 0..<4, using: &random)
            return .array((0..<count).map { _ in value(depth - 1, using: &random) })
        default: return .object(object(depth - 1, using: &random))
        }
    }

    private func object(_ depth: Int, using random: inout Seeded) -> JSONObject {
        let keys = [
            "files", "consume", "update_url", "ranks", "inference_group_ranks", "timeout", "uds",
            "instances", "wait", "reset_prefix_cache", "workers", "other",
        ]
        var chosen: [(String, JSONValue)] = []
        for key in keys where Int.random(in: 0..<3, using: &random) == 0 {
            chosen.append((key, value(depth, using: &random)))
        }
        return JSONObject(chosen)
    }

    /// The daemon's working directory is not the client's.
    @Test func aPathHasToBeAbsolute() {
        let body = JSONObject([("files", .array([.string("/a"), .string("models/b")]))])
        do throws(ControlError) {
            _ = try RegisterBody(RequestFields(body))
            Issue.record("a relative path was taken")
        } catch {
            #expect(error.message.contains("files[1]"))
            #expect(error.message.contains("absolute") && error.message.contains("models/b"))
        }
    }

    @Test(arguments: [1, 2, 3, 4] as [UInt64])
    func anyObjectIsTakenOrRefusedWithTheFieldsName(seed: UInt64) {
        var random = Seeded(state: seed)
        for _ in 0..<2000 {
            let body = object(3, using: &random)
            let text = String(decoding: JSONValue.object(body).encoded(), as: UTF8.self)
            do throws(ControlError) {
                let registration = try RegisterBody(RequestFields(body))
                #expect(!registration.files.isEmpty, "seed \(seed): \(text)")
                #expect(body.keys.allSatisfy { ["files", "consume"].contains($0) })
            } catch {
                #expect(error.status.code == 400, "seed \(seed): \(text)")
                #expect(error.message.contains("\""), "seed \(seed): \(text)")
            }
            do throws(ControlError) {
                let update = try UpdateBody(RequestFields(body))
                #expect(!update.request.instances.isEmpty, "seed \(seed): \(text)")
                #expect(update.request.timeoutSeconds > 0, "seed \(seed): \(text)")
                #expect(body["files"] == nil && body["other"] == nil, "seed \(seed): \(text)")
            } catch {
                #expect([400, 501].contains(error.status.code), "seed \(seed): \(text)")
                #expect(error.message.contains("\""), "seed \(seed): \(text)")
            }
        }
    }

    @Test func readsTheKnownFields() throws {
        let body = try UpdateBody(
            RequestFields(
                JSONObject([
                    ("update_url", .string("http://h:1/collective_rpc")), ("ranks", .array([])),
                    ("inference_group_ranks", .array([.integer(4), .integer(5)])),
                    ("timeout", .number(2.5)), ("uds", .string("/run/engine.sock")),
                ])))
        let instance = try #require(body.request.instances.first)
        #expect(body.request.instances.count == 1)
        #expect(instance.updateURL.description == "http://h:1/collective_rpc")
        #expect(instance.unixSocketPath == "/run/engine.sock")
        #expect(instance.workerCount == 2)
        #expect(body.request.timeoutSeconds == 2.5)
        #expect(body.request.resetsPrefixCache)
        #expect(body.waits)
    }

    @Test func readsSeveralInstances() throws {
        let entries: [JSONValue] = [
            .object(JSONObject([("update_url", .string("http://a"))])),
            .object(
                JSONObject([
                    ("update_url", .string("http://b")), ("uds", .null), ("workers", .integer(8)),
                ])),
        ]
        let body = try UpdateBody(
            RequestFields(
                JSONObject([
                    ("instances", .array(entries)), ("wait", .bool(false)),
                    ("reset_prefix_cache", .bool(false)),
                ])))
        #expect(body.request.instances.map(\.updateURL.description) == ["http://a", "http://b"])
        #expect(body.request.instances.map(\.workerCount) == [nil, 8])
        #expect(body.request.timeoutSeconds == 300)
        #expect(!body.request.resetsPrefixCache)
        #expect(!body.waits)
    }
}
