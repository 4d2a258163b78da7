/// The dimensions of a tensor, outermost first. Every dimension is zero or more; a scalar has none.
public struct Shape: Hashable, Sendable {
    public let dimensions: [Int]

    /// Fails when a dimension is negative.
    public init?(_ dimensions: [Int]) {
        guard dimensions.allSatisfy({ $0 >= 0 }) else { return nil }
        self.dimensions = dimensions
    }

    /// The product of the dimensions; `nil` when it does not fit an `Int`.
    public var elementCount: Int? {
        if dimensions.contains(0) { return 0 }
        var count = 1
        for dimension in dimensions {
            let (product, overflow) = count.multipliedReportingOverflow(by: dimension)
            if overflow { return nil }
            count = product
        }
        return count
    }

    /// Bytes of a dense tensor of this shape; `nil` when there are more than a ``ByteCount`` can be or when
    /// packed elements do not fill whole bytes.
    public func byteCount(of dtype: DType) -> Int? {
        guard let elements = elementCount else { return nil }
        let (bits, overflow) = elements.multipliedReportingOverflow(by: dtype.bitWidth)
        guard !overflow, bits % 8 == 0 else { return nil }
        return ByteCount(bits / 8)?.value
    }
}

extension Shape: CustomStringConvertible {
    public var description: String {
        "[" + dimensions.map(String.init).joined(separator: ", ") + "]"
    }
}
