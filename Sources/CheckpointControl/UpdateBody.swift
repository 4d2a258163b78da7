import CheckpointEngine
import CheckpointModel

/// The body of `POST /v1/checkpoints/{name}/update`.
struct UpdateBody {
    static let instanceCountMax = 1024
    static let rankCountMax = 65_536
    /// GPUs are numbered from zero on.
    private static let ranks = 0...(rankCountMax - 1)
    static let textByteCountMax = 4096

    let request: UpdateRequest
    /// Whether the answer waits for the end of the update.
    let waits: Bool

    init(_ body: RequestFields) throws(ControlError) {
        var fields = body
        let updateURL = try fields.optionalString(
            "update_url", byteCountMax: HTTPURL.byteCountMax
        ).map { text throws(ControlError) in try Self.url(text) }
        let socket = try fields.optionalString("uds", byteCountMax: Self.textByteCountMax)
        let ranks = try fields.integers(
            "ranks", in: Self.ranks, countMax: Self.rankCountMax)
        let group = try fields.integers(
            "inference_group_ranks", in: Self.ranks, countMax: Self.rankCountMax)
        let timeout = try fields.seconds(
            "timeout", default: UpdateRequest.timeoutSecondsDefault,
            max: UpdateRequest.timeoutSecondsMax)
        let resets = try fields.boolean("reset_prefix_cache", default: true)
        waits = try fields.boolean("wait", default: true)
        let kind = try fields.optionalChoice("engine", EngineKind.self) ?? .vllm
        let pause = try fields.optionalChoice("pause", PauseMode.self)
        let version = try fields.optionalString(
            "weight_version", byteCountMax: UpdateRequest.weightVersionByteCountMax)
        let wakes = try fields.boolean("wake", default: false)
        let sender = try Self.nativeSender(&fields)
        var instances: [EngineInstance] = []
        for entry in try fields.objects("instances", countMax: Self.instanceCountMax) {
            instances.append(try Self.instance(entry, kind))
        }
        try fields.finish()
        guard ranks.isEmpty || group.isEmpty || ranks == group else {
            throw .invalid(
                "the fields \"ranks\" and \"inference_group_ranks\" name other GPUs: keep one")
        }
        request = UpdateRequest(
            instances: try Self.instances(
                listed: instances, updateURL: updateURL, socket: socket,
                group: group.isEmpty ? ranks : group, kind),
            timeoutSeconds: timeout, resetsPrefixCache: resets, pause: pause,
            weightVersion: version, wakes: wakes, nativeSender: sender)
    }

    private static func url(_ text: String) throws(ControlError) -> HTTPURL {
        do throws(AddressFlaw) {
            return try HTTPURL(text)
        } catch {
            throw .invalid("the field \"update_url\": \(error)")
        }
    }

    /// The GPU that sends by vLLM's own transfer; `nil` for the worker extension.
    private static func nativeSender(_ fields: inout RequestFields) throws(ControlError) -> Int? {
        let transfer =
            try fields.optionalChoice("engine_protocol", EngineTransfer.self) ?? .workerExtension
        let gpu = try fields.optionalIndex("sender_gpu", max: rankCountMax)
        guard gpu == nil || transfer == .vllmNative else {
            throw .invalid(
                "the field \"sender_gpu\" needs \"engine_protocol\": \"vllm-native\"")
        }
        return transfer == .vllmNative ? gpu ?? 0 : nil
    }

    /// One entry of `instances`; `kind` is that of entries that name none.
    private static func instance(_ entry: RequestFields, _ kind: EngineKind) throws(ControlError)
        -> EngineInstance
    {
        var fields = entry
        let kind = try fields.optionalChoice("engine", EngineKind.self) ?? kind
        let url = try Self.url(
            try fields.string("update_url", byteCountMax: HTTPURL.byteCountMax))
        let socket = try fields.optionalString("uds", byteCountMax: textByteCountMax)
        let workers = try fields.optionalCount("workers", max: rankCountMax)
        let ranks = try fields.integers("ranks", in: Self.ranks, countMax: rankCountMax)
        try fields.finish()
        guard Set(ranks).count == ranks.count,
            ranks.isEmpty || workers ?? ranks.count == ranks.count
        else {
            throw .invalid(
                "the field \"ranks\" of an instance has to name the GPU of each of its workers "
                    + "once, got \(ranks.prefix(64))")
        }
        return EngineInstance(
            updateURL: url, unixSocketPath: socket,
            workerCount: workers ?? (ranks.isEmpty ? nil : ranks.count),
            ranks: ranks.isEmpty ? nil : ranks, kind: kind)
    }

    /// The instances of the update: those listed, or the one that the other fields describe.
    private static func instances(
        listed: [EngineInstance], updateURL: HTTPURL?, socket: String?, group: [Int],
        _ kind: EngineKind
    ) throws(ControlError) -> [EngineInstance] {
        if let updateURL {
            guard listed.isEmpty else {
                throw .invalid(
                    "the fields \"update_url\" and \"instances\" exclude each other: keep one")
            }
            guard Set(group).count == group.count else {
                throw .invalid(
                    "the field \"inference_group_ranks\" has to name each rank once, "
                        + "got \(group.prefix(64))")
            }
            return [
                EngineInstance(
                    updateURL: updateURL, unixSocketPath: socket,
                    workerCount: group.isEmpty ? nil : group.count,
                    ranks: group.isEmpty ? nil : group, kind: kind)
            ]
        }
        guard !listed.isEmpty else {
            throw .invalid(
                "nothing to update: set \"update_url\" to the engine's URL, for vLLM "
                    + "http://HOST:PORT/collective_rpc, or list several engines in \"instances\"")
        }
        guard socket == nil, group.isEmpty else {
            throw .invalid(
                "\"uds\" and \"inference_group_ranks\" belong to \"update_url\"; with "
                    + "\"instances\" set \"uds\" and \"workers\" in each entry")
        }
        return listed
    }
}
