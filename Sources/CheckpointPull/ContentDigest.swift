/// Names the bytes of a checkpoint, whatever they are called: it tells two versions of the same tensors apart.
///
/// It is a sum over the chunks, each with its place and its CRC-32C. So it is known as soon as all checksums are,
/// in whatever order they came, and the digests of parts add up to that of the whole. It notices other bytes; it
/// does not stop somebody who makes bytes to fit it.
public struct ContentDigest: Hashable, Sendable {
    private var sum: UInt64 = 0

    public init() {}

    /// Sixteen digits or fewer.
    public var text: String { String(sum, radix: 16) }

    public mutating func add(_ chunk: Int, _ checksum: UInt32) {
        sum &+= Self.mixed(chunk, checksum)
    }

    public mutating func remove(_ chunk: Int, _ checksum: UInt32) {
        sum &-= Self.mixed(chunk, checksum)
    }

    /// All bits depend on all; no two pairs have the same (SplitMix64's last step).
    private static func mixed(_ chunk: Int, _ checksum: UInt32) -> UInt64 {
        var bits = UInt64(chunk + 1) << 32 | UInt64(checksum)
        bits = (bits ^ (bits >> 30)) &* 0xbf58_476d_1ce4_e5b9
        bits = (bits ^ (bits >> 27)) &* 0x94d0_49bb_1331_11eb
        return bits ^ (bits >> 31)
    }
}
