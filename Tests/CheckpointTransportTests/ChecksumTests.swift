import CNative
import CheckpointNative
import CheckpointTesting
import Testing

struct ChecksumTests {
    private static func portable(_ bytes: ArraySlice<UInt8>, following before: UInt32) -> UInt32 {
        unsafe bytes.withUnsafeBytes { unsafe ce_crc32c_portable(before, $0.baseAddress, $0.count) }
    }

    private static func sum(_ bytes: ArraySlice<UInt8>, following before: UInt32) -> UInt32 {
        unsafe bytes.withUnsafeBytes { unsafe Checksum.crc32c($0, following: before) }
    }

    /// The sum bit by bit, as it is defined.
    private static func plain(_ bytes: ArraySlice<UInt8>) -> UInt32 {
        var state = UInt32.max
        for byte in bytes {
            state ^= UInt32(byte)
            for _ in 0..<8 { state = state >> 1 ^ (state & 1 == 1 ? 0x82f6_3b78 : 0) }
        }
        return ~state
    }

    /// The check value of the catalogue of checksums, and those of RFC 3720, appendix B.4.
    @Test(
        arguments: [
            (Array("123456789".utf8), 0xe306_9283), ([], 0),
            ([UInt8](repeating: 0, count: 32), 0x8a91_36aa),
            ([UInt8](repeating: 0xff, count: 32), 0x62a8_ab43),
            ([UInt8](0..<32), 0x46dd_794e), ([UInt8]((0..<32).reversed()), 0x113f_db5c),
        ] as [([UInt8], UInt32)])
    func hasTheKnownValues(_ bytes: [UInt8], _ expected: UInt32) {
        #expect(unsafe Checksum.crc32c(bytes.span.bytes) == expected)
        #expect(Self.sum(bytes[...], following: 0) == expected)
        #expect(Self.portable(bytes[...], following: 0) == expected)
    }

    @Test func bothWaysAreEqualAtAnyLengthAndAlignment() {
        let seed = UInt64.random(in: 0 ... .max)
        var generator = SeededGenerator(seed: seed)
        let bytes = (0..<60_000).map { _ in UInt8.random(in: 0...255, using: &generator) }
        for round in 0..<600 {
            let start = Int.random(in: 0..<64, using: &generator)
            let longest = round.isMultiple(of: 3) ? bytes.count - start : 600
            let piece = bytes[start..<(start + Int.random(in: 0...longest, using: &generator))]
            let middle = Int.random(in: piece.startIndex...piece.endIndex, using: &generator)
            let expected = Self.plain(piece)
            #expect(Self.sum(piece, following: 0) == expected, "seed \(seed)")
            #expect(Self.portable(piece, following: 0) == expected, "seed \(seed)")
            let head = Self.portable(piece[..<middle], following: 0)
            #expect(Self.sum(piece[middle...], following: head) == expected, "seed \(seed)")
            #expect(Self.portable(piece[middle...], following: head) == expected, "seed \(seed)")
        }
    }

    @Test(arguments: [8191, 8192, 8193, 8207, 8208, 8215, 8216, 1 << 20])
    func streamsMeetAtTheirBorders(_ count: Int) {
        var generator = SeededGenerator(seed: 5)
        let bytes = (0..<count).map { _ in UInt8.random(in: 0...255, using: &generator) }
        #expect(Self.sum(bytes[...], following: 0) == Self.plain(bytes[...]))
    }
}
