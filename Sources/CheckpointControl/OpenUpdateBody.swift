import CheckpointEngine

/// The body of `POST /v1/checkpoints/{name}/open-update`.
struct OpenUpdateBody {
    private static let deviceByteCountMax = 128

    let workers: [String]
    let calls: Int
    let timeoutSeconds: Double
    /// Whether the other hosts of the daemon's group take no part.
    let alone: Bool

    init(_ body: RequestFields) throws(ControlError) {
        var fields = body
        workers = try fields.strings(
            "workers", countMax: UpdateRequest.workerCountMax,
            byteCountMax: Self.deviceByteCountMax)
        calls =
            try fields.optionalCount("calls", max: UpdateRequest.workerCountMax) ?? 1
        timeoutSeconds = try fields.seconds(
            "timeout", default: UpdateRequest.timeoutSecondsDefault,
            max: UpdateRequest.timeoutSecondsMax)
        alone = try fields.boolean("alone", default: false)
        try fields.finish()
    }
}
