import CheckpointEngine
import CheckpointModel
import CheckpointPull

/// The body of `POST /v1/checkpoints/{name}/pull`.
struct PullBody {
    private static let tokenByteCountMax = 4096
    private static let stallSecondsMax = 86_400.0

    /// None takes those of the metas that were loaded.
    let sources: [SourceAddress]
    let token: String?
    let remoteName: CheckpointName?
    let stallSeconds: Double
    let waits: Bool
    let keep: PullKeep

    init(_ body: RequestFields) throws(ControlError) {
        var fields = body
        var sources: [SourceAddress] = []
        for entry in try fields.objects("sources", countMax: PullRequest.sourceCountMax) {
            sources.append(try Self.source(entry))
        }
        let remote = try fields.optionalString(
            "remote_name", byteCountMax: CheckpointName.byteCountMax)
        let stall = PullRequest.stallTimeoutDefault.components.seconds
        stallSeconds = try fields.seconds(
            "stall_timeout", default: Double(stall), max: Self.stallSecondsMax)
        token = try fields.optionalString("token", byteCountMax: Self.tokenByteCountMax)
        waits = try fields.boolean("wait", default: true)
        keep = try Self.keep(try fields.optionalString("keep", byteCountMax: 16))
        try fields.finish()
        guard keep == .always || !waits else {
            throw .invalid(
                "what is not kept arrives with its update: it needs \"wait\": false, and the update"
            )
        }
        remoteName = try remote.map { text throws(ControlError) in
            guard let name = CheckpointName(text) else {
                throw .invalid(
                    "\"remote_name\" is no checkpoint's name: expected \(CheckpointName.rule)")
            }
            return name
        }
        self.sources = sources
    }

    private static func keep(_ text: String?) throws(ControlError) -> PullKeep {
        guard let text else { return .always }
        guard let keep = PullKeep(rawValue: text) else {
            let known = PullKeep.allCases.map { "\"\($0.rawValue)\"" }.joined(separator: ", ")
            throw .invalid("\"keep\" is one of \(known), not \"\(text)\"")
        }
        return keep
    }

    private static func source(_ entry: RequestFields) throws(ControlError) -> SourceAddress {
        var fields = entry
        let url = try fields.string("url", byteCountMax: SourceAddress.urlByteCountMax)
        let token = try fields.optionalString("token", byteCountMax: tokenByteCountMax)
        try fields.finish()
        do throws(AddressFlaw) {
            return try SourceAddress(url: url, token: token)
        } catch {
            throw .invalid("the field \"url\" of a source: \(error)")
        }
    }
}
