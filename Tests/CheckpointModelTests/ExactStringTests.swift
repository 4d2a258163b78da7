import CheckpointModel
import Testing

struct ExactStringTests {
    private static let composed = "caf\u{e9}"
    private static let decomposed = "cafe\u{301}"

    @Test func twoNormalFormsAreTwoNames() {
        #expect(Self.composed == Self.decomposed)
        let (one, other) = (ExactString(Self.composed), ExactString(Self.decomposed))
        #expect(one != other)
        #expect(Set([one, other, ExactString(Self.composed)]).count == 2)
        #expect((one < other) != (other < one))
    }

    /// Of every length, so that words and the bytes that are left are compared.
    @Test(arguments: 0..<40)
    func everyByteCounts(_ count: Int) {
        let text = String(repeating: "w", count: count)
        #expect(ExactString(text) == ExactString(text))
        #expect(ExactString(text) != ExactString(text + "w"))
        for place in 0..<count {
            var bytes = Array(text.utf8)
            bytes[place] = UInt8(ascii: "v")
            let other = ExactString(String(decoding: bytes, as: UTF8.self))
            #expect(ExactString(text) != other)
            #expect(other < ExactString(text))
        }
    }

    @Test func pathsAreBytes() {
        let path = "/models/\u{301}a/x.safetensors"
        #expect(path.lastPathComponent == "x.safetensors")
        #expect(path.directoryPath == "/models/\u{301}a")
        #expect("/x".directoryPath == "/")
        #expect("x".directoryPath == "." && "x".lastPathComponent == "x")
        #expect("/\u{301}".containsExactly("/") && "/\u{301}".startsExactly(with: "/"))
        #expect(".\u{301}x".startsExactly(with: ".") && !"x".endsExactly(with: "xx"))
    }
}
