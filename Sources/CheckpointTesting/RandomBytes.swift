/// Fills memory quickly, also in a build without optimisation.
public enum RandomBytes {
    private static let blockByteCount = 4096

    /// So many bytes, of which no two blocks are alike.
    public static func make(_ count: Int, using generator: inout SeededGenerator) -> [UInt8] {
        let block = (0..<blockByteCount).map { _ in UInt8(truncatingIfNeeded: generator.next()) }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(count + blockByteCount)
        while bytes.count < count {
            let start = Int.random(in: 0..<blockByteCount, using: &generator)
            let stamp = generator.next()
            bytes.append(contentsOf: block[start...])
            bytes.append(contentsOf: (0..<8).map { UInt8(truncatingIfNeeded: stamp >> (8 * $0)) })
        }
        return Array(bytes.prefix(count))
    }
}
