/// How many bytes something has that a file, a peer or a request describes: 0 to 2^56.
///
/// More than any machine has, and little enough that an offset, a few of them added, or one beside a memory
/// address fit an `Int`. Sums and products over things that somebody else has counted go through this type: they
/// are `nil` where they leave the range.
public struct ByteCount: Hashable, Sendable {
    /// What a single count may be.
    public static let range = 0...(1 << 56)
    public static let zero = ByteCount(unchecked: 0)

    public let value: Int

    /// `nil` for a negative count and for more than 2^56.
    public init?(_ value: Int) {
        guard Self.range.contains(value) else { return nil }
        self.value = value
    }

    private init(unchecked value: Int) { self.value = value }

    public func adding(_ other: ByteCount) -> ByteCount? { ByteCount(value + other.value) }

    /// So many times as much; `nil` also for a negative `count`.
    public func multiplied(by count: Int) -> ByteCount? {
        let (product, overflow) = value.multipliedReportingOverflow(by: count)
        return overflow ? nil : ByteCount(product)
    }

    /// All of `counts` together; `nil` where one of them, or the sum, is out of range.
    public static func sum(_ counts: some Sequence<Int>) -> ByteCount? {
        var sum = zero
        for count in counts {
            guard let next = ByteCount(count).flatMap(sum.adding) else { return nil }
            sum = next
        }
        return sum
    }
}
