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

    /// This receiver among several that pull the same order from the same complete sources and from
    /// one another: of each `turnCount` pieces of the order, it fetches piece `turn` from complete
    /// sources first.
    public var turn = 0
    /// How many such receivers there are; 1: complete sources are read in the order of want.
    public var turnCount = 1
    /// Bytes of such a piece.
    public var turnByteCount = 8 << 20
    /// Pending bytes that are passed over at most, and so how far the prefix may fall back.
    public var leftByteCountMax = 1 << 30

    public init() {}
}
