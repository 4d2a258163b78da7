/// The 64-bit FNV-1a hash (Fowler, Noll, Vo): the same value on every host and in every run, unlike
/// `Hasher`. It tells whether peers made the same plan; it is no defence against a forger.
public struct FNV1a: Sendable {
    public private(set) var value: UInt64 = 0xcbf2_9ce4_8422_2325

    public init() {}

    public mutating func combine(_ byte: UInt8) {
        value = (value ^ UInt64(byte)) &* 0x100_0000_01b3
    }

    /// The text and a terminator that no UTF-8 text contains.
    public mutating func combine(_ text: String) {
        for byte in text.utf8 { combine(byte) }
        combine(0xff)
    }

    public mutating func combine(_ number: Int) {
        var rest = UInt64(bitPattern: Int64(number))
        for _ in 0..<8 {
            combine(UInt8(truncatingIfNeeded: rest))
            rest >>= 8
        }
    }
}
