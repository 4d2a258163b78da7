import CheckpointTesting
import Testing

@testable import CheckpointEngine

/// What other hosts may send at the begin of an update.
struct HostPayloadTests {
    private static let offer = HostOffer(
        nonce: "12", digest: "ab", unionKey: "0 ab ab", gpuCount: 2, freeByteCount: 1 << 34,
        rails: "00ff")

    private static func text(_ changes: [(String, String)] = []) -> [UInt8] {
        var fields = [
            ("nonce", "\"12\""), ("digest", "\"ab\""), ("union", "\"\""), ("gpus", "2"),
            ("free", "17179869184"), ("rails", "\"\""),
        ]
        for (key, value) in changes {
            fields.removeAll { $0.0 == key }
            fields.append((key, value))
        }
        return Array("{\(fields.map { "\"\($0)\":\($1)" }.joined(separator: ","))}".utf8)
    }

    @Test func anOfferSurvivesItsBytes() throws {
        #expect(try HostOffer(Self.offer.bytes, host: 1).bytes == Self.offer.bytes)
        #expect(try HostOffer(Self.text(), host: 1).gpuCount == 2)
    }

    @Test(arguments: [
        ("gpus", "0"), ("gpus", "-1"), ("gpus", "4097"), ("gpus", "9223372036854775807"),
        ("gpus", "1e3"), ("gpus", "\"2\""), ("free", "-1"), ("free", "9223372036854775807"),
        ("free", "-9223372036854775808"), ("free", "99999999999999999999"), ("free", "0.5"),
        ("digest", "\"a b\""), ("digest", "null"), ("nonce", "7"), ("rails", "[]"), ("more", "1"),
    ])
    func anImpossibleOfferNamesItsHost(_ key: String, _ value: String) {
        let error = #expect(throws: EngineError.self) {
            try HostOffer(Self.text([(key, value)]), host: 7)
        }
        #expect(error?.code == .hostFailed)
        #expect(error?.message.contains("host 7") == true)
    }

    @Test(arguments: [11, 12] as [UInt64])
    func changedOffersNeverTrap(_ seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        for _ in 0..<5000 {
            var bytes = Self.offer.bytes
            for _ in 0..<Int.random(in: 1...3, using: &generator) where !bytes.isEmpty {
                let place = Int.random(in: 0..<bytes.count, using: &generator)
                switch Int.random(in: 0...2, using: &generator) {
                case 0: bytes[place] = UInt8.random(in: 0...255, using: &generator)
                case 1: bytes.insert(contentsOf: Array("99999".utf8), at: place)
                default: bytes.removeSubrange(place...)
                }
            }
            do throws(EngineError) { _ = try HostOffer(bytes, host: 1) } catch {
                #expect(error.code == .hostFailed)
            }
        }
    }

    // MARK: The plan, and the name of the rails

    private static let digest: [UInt8] = Array(1...8)
    private static let rail = [UInt8](repeating: 9, count: 128)

    @Test func hostZeroNamesTheRails() throws {
        let payloads = [Self.digest + Self.rail + Self.rail, Self.digest]
        #expect(
            try UpdateJob.railID(payloads, digest: Self.digest, railCount: 2)
                == Self.rail + Self.rail)
        #expect(
            try UpdateJob.railID(
                [Self.digest, Self.digest], digest: Self.digest, railCount: 0
            ).isEmpty)
    }

    /// More rails than this host has GPUs, parts of a name, none at all.
    @Test(arguments: [0, 1, 127, 129, 256 + 1, 3 * 128, 64 * 128])
    func anotherNumberOfRailsIsRefused(_ byteCount: Int) {
        let id = [UInt8](repeating: 9, count: byteCount)
        let error = #expect(throws: EngineError.self) {
            try UpdateJob.railID(
                [Self.digest + id, Self.digest], digest: Self.digest, railCount: 2)
        }
        #expect(error?.message.contains("host 0") == true)
    }

    @Test(arguments: [[], [1, 2, 3], [9, 9, 9, 9, 9, 9, 9, 9], Array(1...7)] as [[UInt8]])
    func anotherPlanNamesItsHost(_ payload: [UInt8]) {
        let error = #expect(throws: EngineError.self) {
            try UpdateJob.railID([Self.digest, payload], digest: Self.digest, railCount: 0)
        }
        #expect(error?.message.contains("host 1 has made another plan") == true)
    }
}
