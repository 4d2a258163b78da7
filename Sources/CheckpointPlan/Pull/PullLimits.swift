/// How much a pull asks for at once.
public struct PullLimits: Hashable, Sendable {
    /// Bytes of a batch at most; a batch has at least one chunk.
    public var batchByteCountMax = 32 << 20
    /// Bytes of the first batches of an endpoint, whose rate nobody knows yet: the prefix waits for
    /// them when it turns out to be slow.
    public var probeByteCountMax = 1 << 20
    /// How long a batch should take: slow endpoints get smaller ones.
    public var batchSeconds = 0.025
    /// Batches of one source endpoint at most: the one under way and those queued behind it.
    public var depth = 2
    /// What an endpoint is taken to send, in bytes a second, before any has been measured.
    public var bytesPerSecondAssumed = 1e9

    public init() {}
}
