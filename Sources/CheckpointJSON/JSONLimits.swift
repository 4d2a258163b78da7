/// The most that a parser takes from a text that it does not trust.
public struct JSONLimits: Sendable, Hashable {
    /// The depth that no limit may exceed: parsing nested values takes stack.
    public static let depthCeiling = 256

    /// Bytes of the whole text.
    public let byteCountMax: Int
    /// Arrays and objects inside each other: `[]` has depth 1, `[{}]` has 2, a scalar 0.
    public let depthMax: Int
    /// Bytes of one string or key, as UTF-8, after its escapes are resolved.
    public let stringByteCountMax: Int

    /// All three are constants of our own code: none is negative, and `depthMax` is at most
    /// ``depthCeiling``.
    public init(byteCountMax: Int, depthMax: Int, stringByteCountMax: Int) {
        precondition(byteCountMax >= 0 && stringByteCountMax >= 0, "a limit is negative")
        precondition(
            (0...Self.depthCeiling).contains(depthMax), "the depth limit is outside 0...256")
        self.byteCountMax = byteCountMax
        self.depthMax = depthMax
        self.stringByteCountMax = stringByteCountMax
    }
}
