public import CheckpointModel

/// What shall be read, and from whom.
public struct PullRequest: Sendable {
    /// The checkpoint's name at its sources.
    public let checkpoint: CheckpointName
    public let sources: [SourceAddress]
    /// The URL under which others can read from this host meanwhile; `nil` when they cannot.
    public let reader: String?
    /// What the metas say that the bytes are (``ContentDigest``); `nil` where nobody says.
    public let content: String?
    /// How long nothing may arrive before the pull fails.
    public let stallTimeout: Duration

    /// How long a source may be silent before others take its place: well before all of them fail.
    var silenceMax: Duration { .milliseconds(Int(min(5, stallTimeout.inSeconds / 3) * 1000)) }

    public static let stallTimeoutDefault = Duration.seconds(20)
    public static let sourceCountMax = 1024

    public init(
        checkpoint: CheckpointName, sources: [SourceAddress], reader: String? = nil,
        content: String? = nil, stallTimeout: Duration = Self.stallTimeoutDefault
    ) {
        self.checkpoint = checkpoint
        self.sources = sources
        self.reader = reader
        self.content = content
        self.stallTimeout = stallTimeout
    }
}
