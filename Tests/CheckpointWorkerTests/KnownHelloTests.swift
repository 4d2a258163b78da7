import CheckpointTesting
import Testing

@testable import CheckpointWorker

/// The hello in front of the known protocol's first frame.
struct KnownHelloTests {
    private static let hello = Array(#"{"type":"hello","protocol":"checkpoint-engine"}"#.utf8)

    private func frame(
        _ text: [UInt8], length: Int? = nil, start: [UInt8] = [0x80, 0x04, 0x58],
        rest: [UInt8] = [0x30, 0x4E, 0x2E]
    ) -> [UInt8] {
        let count = length ?? text.count
        return start + (0..<4).map { UInt8(truncatingIfNeeded: count >> (8 * $0)) } + text + rest
    }

    @Test func theWritersFrameHasIt() {
        let counter: (name: String, slot: Int)? = nil
        let written = KnownFrames.handle(
            hello: Self.hello, memoryHandle: [UInt8](repeating: 7, count: 64), byteCount: 1 << 20,
            counter: counter)
        #expect(KnownHello.frame(in: written) == Self.hello)
    }

    @Test func nothingBehindTheTextMatters() {
        #expect(KnownHello.frame(in: frame(Self.hello, rest: [0x30])) == Self.hello)
        #expect(KnownHello.frame(in: frame(Self.hello, rest: [0x30, 0xFF, 0x00])) == Self.hello)
    }

    @Test func otherFramesHaveNone() {
        let frames = [
            [], [0x80], [0x80, 0x04], Self.hello, frame([]),
            frame(Array(#"{"type":"commit"}"#.utf8)),
            frame(Self.hello, start: [0x80, 0x05, 0x58]),
            frame(Self.hello, start: [0x80, 0x04, 0x8C]), frame(Self.hello, rest: []),
            frame(Self.hello, rest: [0x2E]), frame(Self.hello, length: Self.hello.count - 1),
            frame(Self.hello, length: Self.hello.count + 3), frame(Self.hello, length: 1 << 30),
            frame(Self.hello, length: 0xFFFF_FFFF), frame([], length: 0xFFFF_FFFF, rest: []),
        ]
        for frame in frames { #expect(KnownHello.frame(in: frame) == nil) }
    }

    @Test func aLongTextIsRefused() {
        let limit = 1 << 20
        let padding = [UInt8](repeating: 0x20, count: limit - Self.hello.count)
        #expect(KnownHello.frame(in: frame(Self.hello + padding)) != nil)
        #expect(KnownHello.frame(in: frame(Self.hello + padding + [0x20])) == nil)
    }

    /// No cut and no changed byte makes the reader look behind the frame.
    @Test func damagedFramesAreReadWithinTheirBounds() {
        var generator = SeededGenerator(seed: .random(in: 0 ... .max))
        let whole = frame(Self.hello)
        for end in 0..<whole.count {
            let cut = Array(whole[..<end])
            #expect((KnownHello.frame(in: cut) != nil) == (end > 7 + Self.hello.count))
        }
        for _ in 0..<5000 {
            var damaged = whole
            damaged[Int.random(in: 0..<damaged.count, using: &generator)] = .random(
                in: 0...255, using: &generator)
            if let found = KnownHello.frame(in: damaged) {
                #expect(found.count == Self.hello.count)
            }
        }
    }
}
