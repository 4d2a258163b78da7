import CheckpointJSON

/// The body of `POST /v1/checkpoints/{name}/files`.
struct RegisterBody {
    static let fileCountMax = 100_000
    /// The longest path that Linux takes, without its terminating zero.
    static let pathByteCountMax = 4095

    let files: [String]
    let consumes: Bool

    init(_ body: RequestFields) throws(ControlError) {
        var fields = body
        files = try fields.strings(
            "files", countMax: Self.fileCountMax, byteCountMax: Self.pathByteCountMax)
        consumes = try fields.boolean("consume", default: false)
        try fields.finish()
        guard !files.isEmpty else {
            throw .invalid(
                "the field \"files\" is empty: it has to name at least one safetensors file, "
                    + "directory or index file")
        }
        if let index = files.firstIndex(where: { !$0.hasPrefix("/") }) {
            throw fields.wrong(
                "files[\(index)]",
                "an absolute path, since the daemon does not know the client's working directory",
                .string(files[index]))
        }
    }
}
