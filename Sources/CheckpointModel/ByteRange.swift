/// A half-open range of bytes, `offset ..< end`, inside some named thing (a file, a segment).
public struct ByteRange: Hashable, Sendable {
    public let offset: Int
    public let byteCount: Int

    /// Fails when either number is negative or the end lies behind what a ``ByteCount`` can be.
    public init?(offset: Int, byteCount: Int) {
        guard let start = ByteCount(offset), let count = ByteCount(byteCount),
            start.adding(count) != nil
        else { return nil }
        self.offset = offset
        self.byteCount = byteCount
    }

    public var end: Int { offset + byteCount }
}
