import CheckpointTesting
import NIOCore
import Testing

@testable import CheckpointHosts

/// What may come over a connection, and how much of it is kept before it is known from whom.
struct HostFramesTests {
    private static let messages: [HostMessage] = [
        .hello(host: 1, hostCount: 2, name: "a\"b", token: ""), .welcome(names: ["x", ""]),
        .refused(reason: "no"), .put(key: "k", payload: [0, 1, 255]),
        .withdraw(key: "k", reason: nil), .withdraw(key: "k", reason: "r"),
        .left(key: "k", host: 2, reason: "r"), .all(key: "k", payloads: [[], [1], [2, 3]]),
        .end(scope: "s", host: 3, reason: "r"), .ping,
    ]

    private static func frame(_ header: String, payload: [UInt8] = []) -> [UInt8] {
        let bytes = Array(header.utf8)
        return number(4 + bytes.count + payload.count) + number(bytes.count) + bytes + payload
    }

    private static func number(_ value: Int) -> [UInt8] {
        [24, 16, 8, 0].map { UInt8(truncatingIfNeeded: value >> $0) }
    }

    /// Everything that `bytes` hold.
    private static func read(_ bytes: [UInt8], isMember: Bool = true) throws(HostError)
        -> [HostMessage]
    {
        var frames = HostFrames()
        var buffer = ByteBuffer(bytes: bytes)
        var messages: [HostMessage] = []
        while let message = try frames.next(&buffer, isMember: isMember) {
            messages.append(message)
        }
        return messages
    }

    @Test func messagesSurviveTheirFrames() throws {
        var buffer = ByteBuffer()
        for message in Self.messages { try HostFrames.write(message, to: &buffer) }
        #expect(try Self.read(Array(buffer.readableBytesView)) == Self.messages)
    }

    @Test func bytesMayComeOneByOne() throws {
        var written = ByteBuffer()
        for message in Self.messages { try HostFrames.write(message, to: &written) }
        var frames = HostFrames()
        var buffer = ByteBuffer()
        var messages: [HostMessage] = []
        for byte in written.readableBytesView {
            buffer.writeInteger(byte)
            if let message = try frames.next(&buffer, isMember: true) { messages.append(message) }
        }
        #expect(messages == Self.messages)
    }

    /// A stranger's long frame is refused by its first eight bytes: nothing of it is waited for.
    @Test(arguments: [
        number(700 << 20) + number(16), number(700 << 20) + number(600 << 20),
        number(20_004) + number(20_000), number(3) + number(0), number(4) + number(1),
        number(-1) + number(-1), number(-1) + number(4),
    ])
    func longFramesOfStrangersAreRefusedAtOnce(_ bytes: [UInt8]) throws {
        let header = Array("{\"type\":\"ping\"}\n ".utf8)
        #expect(throws: HostError.self) { try Self.read(bytes + header, isMember: false) }
    }

    @Test func strangersHaveNoPayloads() {
        let frame = Self.frame("{\"type\":\"put\",\"key\":\"k\"}", payload: [1])
        #expect(throws: HostError.self) { try Self.read(frame, isMember: false) }
        #expect(throws: Never.self) { try Self.read(frame) }
    }

    @Test(arguments: [
        frame(""), frame("{}"), frame("[]"), frame("{\"type\":\"other\"}"),
        frame("{\"type\":\"ping\"}", payload: [1]),
        frame("{\"type\":\"ping\",\"more\":1}"),
        frame("{\"type\":\"end\",\"scope\":\"s\",\"host\":-1,\"reason\":\"\"}"),
        frame("{\"type\":\"end\",\"scope\":\"s\",\"host\":9223372036854775807,\"reason\":\"\"}"),
        frame("{\"type\":\"left\",\"key\":\"s\",\"host\":1e3,\"reason\":\"\"}"),
        frame("{\"type\":\"welcome\",\"names\":[1]}"),
        frame("{\"type\":\"all\",\"key\":\"k\",\"lengths\":[1,-1]}"),
        frame("{\"type\":\"all\",\"key\":\"k\",\"lengths\":[2]}", payload: [1]),
        frame("{\"type\":\"all\",\"key\":\"k\",\"lengths\":[1073741824,1073741824]}"),
        frame(
            "{\"type\":\"all\",\"key\":\"k\",\"lengths\":[9223372036854775807,9223372036854775807]}"
        ), number(Int(UInt32.max)) + number(24) + Array("{\"type\":\"put\",\"key\":\"k\"}".utf8),
    ])
    func otherFramesAreRefused(_ frame: [UInt8]) {
        #expect(throws: HostError.self) { try Self.read(frame) }
    }

    /// Right messages with wrong bytes: whatever they say, they end in a message or an error.
    @Test(arguments: [1, 2, 3] as [UInt64])
    func changedFramesNeverTrap(_ seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        for _ in 0..<3000 {
            var buffer = ByteBuffer()
            for message in Self.messages.shuffled(using: &generator).prefix(3) {
                try HostFrames.write(message, to: &buffer)
            }
            var bytes = Array(buffer.readableBytesView)
            for _ in 0..<Int.random(in: 1...4, using: &generator) {
                let place = Int.random(in: 0..<bytes.count, using: &generator)
                switch Int.random(in: 0...3, using: &generator) {
                case 0: bytes[place] = UInt8.random(in: 0...255, using: &generator)
                case 1: bytes.removeSubrange(place...)
                case 2: bytes.insert(contentsOf: Array("99999999".utf8), at: place)
                default: bytes[place] ^= 1 << UInt8.random(in: 0...7, using: &generator)
                }
                if bytes.isEmpty { break }
            }
            for isMember in [true, false] {
                do throws(HostError) { _ = try Self.read(bytes, isMember: isMember) } catch {
                    #expect(error.code == .protocolViolation)
                }
            }
        }
    }
}
