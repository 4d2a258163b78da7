import CheckpointJSON
import CheckpointModel

/// vLLM's API server in its development mode. Source: vLLM 0.32 and 0.33.
struct VLLMProtocol: EngineProtocol {
    let updatePath = "/collective_rpc"
    let readinessPath = "/health"
    let workerCountPath = "/get_world_size?include_dp=true"
    let repeatsSessions = false
    let resumeCall = EngineCall.post("/resume")
    let sleepCall: EngineCall? = .get("/is_sleeping")

    func isReady(_ status: Int) -> Bool { status == 200 }

    /// All data-parallel ranks together.
    func workerCount(_ answer: EngineAnswer, of engine: EngineAddress) -> Int? {
        guard answer.status == 200, case .integer(let count)? = answer.object?["world_size"]
        else { return nil }
        return count.value(in: 1...4096)
    }

    func updateCall(
        addresses: [(DeviceID, String)], timeout: Duration, _ orders: EngineOrders
    ) -> EngineCall {
        let map = addresses.map { ($0.0.description, JSONValue.string($0.1)) }
        return .post(
            updatePath,
            .object(
                JSONObject([
                    ("method", .string("update_weights_from_ipc")),
                    ("args", .array([.object(JSONObject(map))])),
                    ("timeout", .integer(max(1, Int(timeout.components.seconds)))),
                ])))
    }

    /// One of several workers answers with its failure instead of raising it.
    func updateFailure(_ answer: EngineAnswer) -> String? {
        guard answer.isSuccess else { return "answered \(answer.status)" }
        guard case .array(let results)? = answer.object?["results"] else { return nil }
        for result in results {
            if case .object(let object) = result,
                case .string(let text)? = object[Self.failureKey]
            {
                return "has failed on a worker: \(text)"
            }
        }
        return nil
    }

    /// Source: `vllm_extension.py` of the Python package.
    private static let failureKey = "checkpoint_engine_failure"

    func pauseCall(_ mode: PauseMode, _ orders: EngineOrders) -> EngineCall {
        .post("/pause?mode=\(mode.rawValue)&clear_cache=\(orders.resetsPrefixCache)")
    }

    /// Requests that a pause keeps hold their part of the cache: they are computed anew after it.
    func resetCall(_ orders: EngineOrders) -> EngineCall? {
        .post("/reset_prefix_cache" + (orders.pause == .keep ? "?reset_running_requests=true" : ""))
    }

    func versionCall(_ version: String) -> EngineCall? {
        .post(
            "/update_weight_version",
            .object(JSONObject([("new_version", .string(version))])))
    }

    func wakeCall(_ part: EngineMemory) -> EngineCall { .post("/wake_up?tags=\(part.rawValue)") }

    func advice(_ status: Int, _ call: EngineCall) -> String {
        switch status {
        case 404:
            "; vLLM has this call only with VLLM_SERVER_DEV_MODE=1 in its environment"
                + (call.path.hasPrefix("/pause") || call.path.hasPrefix("/update_weight_version")
                    ? ", and since version 0.32" : "")
        case 401, 403:
            "; the engine wants a key: name the file that holds it with --engine-token-file"
        case 400, 500:
            call.path.hasPrefix("/wake_up")
                ? "; vLLM wakes only with --enable-sleep-mode" : ""
        default: ""
        }
    }
}
