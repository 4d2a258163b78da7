import ArgumentParser
import CheckpointControl
import CheckpointEngine
import CheckpointModel
import CheckpointPull

/// Flags about the hosts that a checkpoint is read from, the same for `update` and `join`.
struct SourceOptions: ParsableArguments {
    @Option(
        name: .customLong("source"),
        help: Variables.help(
            "source",
            "The URL of a daemon that has the checkpoint; repeat it for several, which share the load. "
                + "The variable separates them by commas.", "url"))
    var sources: [URLValue] = []

    @Option(
        name: .customLong("source-token-file"),
        help: Variables.help(
            "source-token-file", "A file with the token that the sources ask for.", "file"),
        completion: .file())
    var tokenFile: PathValue?

    @Option(
        name: .customLong("source-name"),
        help: Variables.help(
            "source-name",
            "What the checkpoint is called at the sources (default: as --checkpoint-name).", "name")
    )
    var sourceName: NameValue?

    @Option(
        name: .customLong("load-metas-file"),
        help: Variables.help(
            "load-metas-file",
            "Take the sources from a file that --save-metas-file has written.", "file"),
        completion: .file())
    var metasFile: PathValue?

    @Option(
        name: .customLong("metas-url"),
        help: Variables.help(
            "metas-url",
            "Take the sources from the metas of a daemon: its URL, with or without /v1/metas.",
            "url"))
    var metasURL: URLValue?

    @Option(
        name: .customLong("stall-timeout"),
        help: Variables.help(
            "stall-timeout",
            "How long nothing may arrive from any source before the pull fails (default: 20).",
            "seconds"))
    var stallTimeout: SecondsValue?

    @Option(
        name: .customLong("keep"),
        help: Variables.help(
            "keep",
            "Whether the checkpoint stays on this host: always, never, or auto, which keeps it where "
                + "there is memory for all of it. What is not kept passes through a ring on its way "
                + "into the engines (default: auto).", "when"))
    var keep: PullKeep?

    /// Whether the command line names a source.
    var isGiven: Bool { !sources.isEmpty || metasFile != nil || metasURL != nil }

    private static func source(_ url: HTTPURL, _ token: String?) throws -> SourceAddress {
        do throws(AddressFlaw) {
            return try SourceAddress(url, token: token)
        } catch {
            throw ValidationError("'--source': \(error)")
        }
    }

    /// What was said; throws when no source was named.
    func order(_ variables: Variables) throws -> SourceOrder {
        let token = try variables.value(tokenFile, "source-token-file").map {
            try TokenFile.read($0.path).text
        }
        let urls = try variables.values(sources, "source").map { try $0.url("source") }
        let file = try variables.value(metasFile, "load-metas-file")?.path
        let url = try variables.value(metasURL, "metas-url")?.url("metas-url")
        guard !urls.isEmpty || file != nil || url != nil else {
            throw ValidationError(
                "Missing expected option '--source' (or '--load-metas-file' or '--metas-url'): the "
                    + "daemons that have the checkpoint.")
        }
        let stall = try variables.value(stallTimeout, "stall-timeout")?.seconds
        return SourceOrder(
            addresses: try urls.map { try Self.source($0, token) }, token: token,
            metasFile: file, metasURL: url?.description,
            remoteName: try variables.value(sourceName, "source-name")?.name,
            stallTimeout: stall.map { .seconds($0) } ?? PullRequest.stallTimeoutDefault,
            keep: try variables.value(keep, "keep") ?? .whenItFits)
    }
}

/// Where a checkpoint is read from.
struct SourceOrder: Sendable {
    let addresses: [SourceAddress]
    let token: String?
    let metasFile: String?
    let metasURL: String?
    let remoteName: CheckpointName?
    let stallTimeout: Duration
    let keep: PullKeep
}

extension PullKeep: CommandValue {}
