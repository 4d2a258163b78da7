import CheckpointJSON
public import CheckpointModel
import FoundationEssentials

/// vLLM's own weight transfer with its `nccl` backend: the engine joins a group of NCCL, and receives packed
/// broadcasts without any code of ours. Source: `vllm/distributed/weight_transfer`, vLLM 0.32 and 0.33.
extension EngineClient {
    /// How long an engine may take to leave a group.
    private static let leaveTimeout = Duration.seconds(10)

    /// Has the workers of an engine join the group `id` (128 bytes) of `worldSize` members, from the rank
    /// `rankOffset` on. Returns when all members have joined, so the sender has to join meanwhile.
    public func joinNative(
        _ engine: EngineAddress, id: [UInt8], rankOffset: Int, worldSize: Int,
        chunkByteCount: Int, chunkCount: Int, timeout: Duration
    ) async throws(WorkerError) {
        let info = JSONObject([
            ("nccl_unique_id_b64", .string(Data(id).base64EncodedString())),
            ("rank_offset", .integer(rankOffset)), ("world_size", .integer(worldSize)),
            ("packed", .bool(true)), ("packed_buffer_size_bytes", .integer(chunkByteCount)),
            ("packed_num_buffers", .integer(chunkCount)),
        ])
        try await native(
            .post(
                "/init_weight_transfer_engine", .object(JSONObject([("init_info", .object(info))]))),
            engine, timeout: timeout)
    }

    /// Has an engine end the update that a failure has left open, if any, and leave the group that it is
    /// in. What it answers does not matter: one that was restarted is in none.
    public func leaveNative(_ engine: EngineAddress) async {
        for path in ["/finish_weight_update", "/shutdown_weight_transfer_engine"] {
            _ = try? await send(.post(path), to: engine, timeout: Self.leaveTimeout)
        }
    }

    /// Opens an update: what follows changes the engine's weights.
    public func startNative(_ engine: EngineAddress, timeout: Duration) async throws(WorkerError) {
        try await native(.post("/start_weight_update"), engine, timeout: timeout)
    }

    /// Has the engine receive and load `tensors`, in this order; returns when it has.
    public func receiveNative(
        _ engine: EngineAddress, tensors: [TensorEntry], timeout: Duration
    ) async throws(WorkerError) {
        var dtypes: [JSONValue] = []
        for tensor in tensors {
            guard let name = tensor.dtype.torchName else {
                throw WorkerError(
                    .invalidArgument,
                    "torch has no type for \(tensor.dtype.rawValue), which \(tensor.name) is of")
            }
            dtypes.append(.string(String(name.dropFirst("torch.".count))))
        }
        let info = JSONObject([
            ("names", .array(tensors.map { .string($0.name) })), ("dtype_names", .array(dtypes)),
            (
                "shapes",
                .array(
                    tensors.map { tensor in
                        .array(tensor.shape.dimensions.map { .integer($0) })
                    })
            ),
        ])
        try await native(
            .post("/update_weights", .object(JSONObject([("update_info", .object(info))]))), engine,
            timeout: timeout)
    }

    /// Ends an update: the engine finishes the load and serves the new weights.
    public func finishNative(_ engine: EngineAddress, timeout: Duration) async throws(WorkerError) {
        try await native(.post("/finish_weight_update"), engine, timeout: timeout)
    }

    private func native(_ call: EngineCall, _ engine: EngineAddress, timeout: Duration)
        async throws(WorkerError)
    {
        let answer = try await send(call, to: engine, timeout: timeout)
        guard !answer.isSuccess else { return }
        let advice =
            switch answer.status {
            case 404:
                "; vLLM has this call only with VLLM_SERVER_DEV_MODE=1 in its environment, and since "
                    + "version 0.32"
            case 401, 403:
                "; the engine wants a key: name the file that holds it with --engine-token-file"
            default:
                "; it has to run with --weight-transfer-config '{\"backend\":\"nccl\"}'"
            }
        throw WorkerError(
            .engineFailed,
            "the engine at \(engine) refused the update: \(call.name) answered \(answer.status)"
                + advice, cause: answer.text)
    }
}
