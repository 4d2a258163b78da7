/// An integer of a JSON text, as long as nobody has said which range it has to be in.
///
/// The text comes from a file, a peer or a request, and may name any number that fits an `Int`. There is no
/// arithmetic on this type: whoever wants to count with one takes it out with a range whose ends keep the sums
/// and products that follow inside an `Int`.
public struct JSONInteger: Hashable, Sendable {
    private let untrusted: Int

    public init(_ value: Int) { untrusted = value }

    /// The integer where it lies in `range`, else `nil`.
    public func value(in range: ClosedRange<Int>) -> Int? {
        range.contains(untrusted) ? untrusted : nil
    }

    /// The nearest double, for quantities that are no counts.
    public var approximation: Double { Double(untrusted) }

    func write(to writer: inout JSONWriter) { writer.integer(untrusted) }
}

extension JSONInteger: CustomStringConvertible {
    public var description: String { untrusted.description }
}
