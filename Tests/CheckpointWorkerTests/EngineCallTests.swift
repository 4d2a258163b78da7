import CheckpointJSON
import CheckpointModel
import CheckpointTesting
import Synchronization
import Testing

@testable import CheckpointWorker

/// What each kind of engine is called with, and what its answers mean.
struct EngineCallTests {
    private static let orders = EngineOrders(pause: .keep, weightVersion: "v1")

    private static func answer(_ status: Int, _ text: String) -> EngineAnswer {
        EngineAnswer(status: status, body: Array(text.utf8))
    }

    private static func text(_ call: EngineCall?) -> String {
        guard let call else { return "" }
        let body = call.body.map { String(decoding: $0.encoded(), as: UTF8.self) } ?? ""
        return "\(call.method) \(call.path) \(body)"
    }

    private static func address(_ kind: EngineKind) throws -> EngineAddress {
        try EngineAddress(HTTPURL("http://h:1"), kind: kind)
    }

    @Test func everyKindHasItsPath() throws {
        #expect(EngineKind.vllm.calls.updatePath == "/collective_rpc")
        #expect(EngineKind.sglang.calls.updatePath == "/update_weights_from_ipc")
        #expect(try !Self.address(.vllm).repeatsSessions)
        #expect(try Self.address(.sglang).repeatsSessions)
    }

    @Test func sglangIsCalledWithHandles() {
        let call = SGLangProtocol().updateCall(
            addresses: [(.cpu(rank: 0), "ipc:///a")], timeout: .seconds(9), Self.orders)
        #expect(
            Self.text(call)
                == #"POST /update_weights_from_ipc {"zmq_handles":{"CPU-0":"ipc:///a"},"flush_cache":true,"#
                + #""weight_version":"v1"}"#)
        let plain = SGLangProtocol().updateCall(
            addresses: [], timeout: .seconds(9), EngineOrders(resetsPrefixCache: false))
        #expect(
            Self.text(plain)
                == #"POST /update_weights_from_ipc {"zmq_handles":{},"flush_cache":false,"weight_version":null}"#
        )
    }

    @Test(arguments: [
        (200, #"{"success":true,"message":"ok"}"#, nil),
        (200, #"{"success":false,"message":"no"}"#, "success: false: no"),
        (400, #"{"success":false,"message":"no"}"#, "answered 400, success: false: no"),
        (400, #"{"success":true}"#, "answered 400"), (200, "null", "without success: true"),
        (200, #"{"success":"true"}"#, "without success: true"), (500, "<html>", "answered 500"),
        (200, "", "without success: true"),
    ])
    func onlyASuccessThatIsToldIsOne(_ status: Int, _ body: String, _ why: String?) {
        let failure = SGLangProtocol().updateFailure(Self.answer(status, body))
        #expect((failure == nil) == (why == nil))
        if let why { #expect(failure?.contains(why) == true, "\(failure ?? "")") }
    }

    @Test(arguments: [
        (#"{"tp_size":4,"dp_size":1}"#, 4), (#"{"tp_size":4,"pp_size":2}"#, 8),
        (#"{"tp_size":0}"#, nil), (#"{}"#, nil),
    ])
    func sglangTellsItsWorkers(_ body: String, _ count: Int?) throws {
        let found = try SGLangProtocol().workerCount(
            Self.answer(200, body), of: Self.address(.sglang))
        #expect(found == count)
    }

    @Test(arguments: [
        (200, #"{"tp_size":4,"dp_size":2}"#, WorkerError.Code.invalidArgument, "dp_size 2"),
        (401, "{}", .engineFailed, "--engine-token-file"), (200, "[]", .engineFailed, "workers"),
    ])
    func sglangThatCannotBeUpdated(
        _ status: Int, _ body: String, _ code: WorkerError.Code, _ words: String
    ) {
        let error = #expect(throws: WorkerError.self) {
            try SGLangProtocol().workerCount(
                Self.answer(status, body), of: Self.address(.sglang))
        }
        #expect(error?.code == code)
        #expect(error?.message.contains(words) == true)
        #expect(error?.message.contains("http://h:1") == true)
    }

    @Test(arguments: [
        (PauseMode.abort, true, "abort"), (.keep, true, "retract"), (.keep, false, "in_place"),
    ])
    func sglangPauses(_ mode: PauseMode, _ resets: Bool, _ name: String) throws {
        let call = try SGLangProtocol().pauseCall(
            mode, EngineOrders(pause: mode, resetsPrefixCache: resets))
        #expect(Self.text(call) == #"POST /pause_generation {"mode":"\#(name)"}"#)
    }

    @Test func pausesThatDoNotExist() throws {
        let error = #expect(throws: WorkerError.self) {
            try EngineClient.check(.wait, for: .sglang)
        }
        #expect(error?.code == .invalidArgument)
        for mode in PauseMode.allCases {
            try EngineClient.check(mode, for: .vllm)
            let call = VLLMProtocol().pauseCall(mode, EngineOrders(pause: mode))
            #expect(Self.text(call) == "POST /pause?mode=\(mode.rawValue)&clear_cache=true ")
        }
    }

    @Test func theOtherCalls() {
        let vllm = VLLMProtocol()
        let sglang = SGLangProtocol()
        #expect(Self.text(vllm.resumeCall) == "POST /resume ")
        #expect(Self.text(sglang.resumeCall) == "POST /continue_generation {}")
        #expect(
            Self.text(vllm.versionCall("v")) == #"POST /update_weight_version {"new_version":"v"}"#)
        #expect(sglang.versionCall("v") == nil && sglang.resetCall(Self.orders) == nil)
        #expect(Self.text(vllm.wakeCall(.cache)) == "POST /wake_up?tags=kv_cache ")
        #expect(
            Self.text(sglang.wakeCall(.weights))
                == #"POST /resume_memory_occupation {"tags":["weights"]}"#)
        #expect(
            Self.text(vllm.resetCall(Self.orders))
                == "POST /reset_prefix_cache?reset_running_requests=true ")
        #expect(Self.text(vllm.resetCall(EngineOrders())) == "POST /reset_prefix_cache ")
    }

    @Test(arguments: [(EngineKind.vllm, [200]), (.sglang, [200, 401, 403, 503])])
    func readiness(_ kind: EngineKind, _ ready: [Int]) {
        for status in [200, 204, 400, 401, 403, 404, 500, 502, 503] {
            #expect(kind.calls.isReady(status) == ready.contains(status), "\(kind) \(status)")
        }
    }
}
