/// A half-open range of bytes, `offset ..< end`, inside some named thing (a file, a segment).
public struct ByteRange: Hashable, Sendable {
    public let offset: Int
    public let byteCount: Int

    /// Fails when either number is negative or their sum does not fit an `Int`.
    public init?(offset: Int, byteCount: Int) {
        guard offset >= 0, byteCount >= 0 else { return nil }
        guard !offset.addingReportingOverflow(byteCount).overflow else { return nil }
        self.offset = offset
        self.byteCount = byteCount
    }

    public var end: Int { offset + byteCount }
}
