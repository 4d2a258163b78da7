import CheckpointJSON
import CheckpointModel

/// SGLang's HTTP server. Source: SGLang 0.5.23.
struct SGLangProtocol: EngineProtocol {
    let updatePath = "/update_weights_from_ipc"
    let readinessPath = "/ping"
    let workerCountPath = "/server_info"
    /// The scheduler serves one session for the model and one for each model that drafts.
    let repeatsSessions = true
    let resumeCall = EngineCall.post("/continue_generation", .object(JSONObject([])))
    let sleepCall: EngineCall? = nil

    private static let workerCounts = 1...4096

    /// 503 while it starts: it may be waiting for the weights that are to come. A server that asks for
    /// a key listens too; whether the key is right is told by the calls that need it.
    func isReady(_ status: Int) -> Bool { [200, 401, 403, 503].contains(status) }

    func workerCount(_ answer: EngineAnswer, of engine: EngineAddress) throws(WorkerError) -> Int? {
        guard answer.status == 200, let object = answer.object else {
            throw WorkerError(
                .engineFailed,
                "the engine at \(engine) does not tell how many workers it has: GET "
                    + "\(workerCountPath) answered \(answer.status)"
                    + advice(answer.status, .get(workerCountPath))
                    + "; or say how many it has", cause: answer.text)
        }
        func count(_ name: String) -> Int? {
            guard case .integer(let count)? = object[name] else { return nil }
            return count.value(in: Self.workerCounts)
        }
        guard count("dp_size") ?? 1 == 1 else {
            throw WorkerError(
                .invalidArgument,
                "the engine at \(engine) has dp_size \(count("dp_size") ?? 0), and SGLang takes weights "
                    + "this way only with 1: start one engine for each data-parallel rank")
        }
        guard let tensorParallel = count("tp_size") else { return nil }
        // Each is at most the maximum: the product cannot overflow.
        let product = tensorParallel * (count("pp_size") ?? 1)
        guard Self.workerCounts.contains(product) else {
            throw WorkerError(
                .engineFailed,
                "the engine at \(engine) tells that it has \(product) workers; "
                    + "\(Self.workerCounts.upperBound) are possible", cause: answer.text)
        }
        return product
    }

    func updateCall(
        addresses: [(DeviceID, String)], timeout: Duration, _ orders: EngineOrders
    ) -> EngineCall {
        let map = addresses.map { ($0.0.description, JSONValue.string($0.1)) }
        return .post(
            updatePath,
            .object(
                JSONObject([
                    ("zmq_handles", .object(JSONObject(map))),
                    ("flush_cache", .bool(orders.resetsPrefixCache)),
                    ("weight_version", orders.weightVersion.map(JSONValue.string) ?? .null),
                ])))
    }

    /// The status alone is not enough: what failed is told in the body.
    func updateFailure(_ answer: EngineAnswer) -> String? {
        let object = answer.object
        if case .bool(true)? = object?["success"], answer.isSuccess { return nil }
        if case .bool(false)? = object?["success"], case .string(let why)? = object?["message"] {
            return "answered \(answer.status), success: false: \(why.prefix(500))"
        }
        return answer.isSuccess
            ? "answered \(answer.status) without success: true" : "answered \(answer.status)"
    }

    /// A cache can be emptied only when no request stands in the batch, so that kept requests go back to
    /// the queue; they are computed anew after the pause.
    func pauseCall(_ mode: PauseMode, _ orders: EngineOrders) throws(WorkerError) -> EngineCall {
        let name: String
        switch mode {
        case .abort: name = "abort"
        case .keep: name = orders.resetsPrefixCache ? "retract" : "in_place"
        case .wait:
            throw WorkerError(
                .invalidArgument,
                "SGLang has no pause that lets requests end first: leave the pause out, since its "
                    + "update waits for running requests by itself and holds new ones, or choose "
                    + "abort or keep")
        }
        return .post("/pause_generation", .object(JSONObject([("mode", .string(name))])))
    }

    func resetCall(_ orders: EngineOrders) -> EngineCall? { nil }

    func versionCall(_ version: String) -> EngineCall? { nil }

    func wakeCall(_ part: EngineMemory) -> EngineCall {
        .post(
            "/resume_memory_occupation",
            .object(JSONObject([("tags", .array([.string(part.rawValue)]))])))
    }

    func advice(_ status: Int, _ call: EngineCall) -> String {
        switch status {
        case 404: "; is this an SGLang server, and of version 0.5.5 or later?"
        case 401, 403:
            "; the engine wants its admin key (or its API key, where it has no other): name the file "
                + "that holds it with --engine-token-file"
        default: ""
        }
    }
}
