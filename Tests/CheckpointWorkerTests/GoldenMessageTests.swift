import CheckpointJSON
import CheckpointTesting
import Testing

@testable import CheckpointWorker

/// The messages of `Fixtures/wire/v1`, which the Python implementation reads too.
struct GoldenMessageTests {
    struct Golden: Sendable, CustomTestStringConvertible {
        let name: String
        let isFromServer: Bool
        let frames: [[UInt8]]
        var testDescription: String { name }
    }

    static let accepted = load("")
    static let rejected = load("rejected/")

    private static func load(_ folder: String) -> [Golden] {
        let root = "\(#filePath)".split(separator: "/").dropLast(3).map { "/" + $0 }.joined()
        let directory = "\(root)/Fixtures/wire/v1/\(folder)"
        return TemporaryDirectory.names(in: directory).filter { $0.hasSuffix(".json") }
            .compactMap { try? golden(directory, $0) }
    }

    private static func golden(_ directory: String, _ name: String) throws -> Golden? {
        let limits = JSONLimits(byteCountMax: 1 << 20, depthMax: 4, stringByteCountMax: 1 << 20)
        let bytes = try TemporaryDirectory.read(directory + name)
        guard case .object(let object) = try JSONValue.parse(bytes, limits: limits),
            case .string(let from)? = object["from"], case .array(let frames)? = object["frames"]
        else { return nil }
        return Golden(
            name: name, isFromServer: from == "server",
            frames: frames.compactMap { frame in
                guard case .string(let text) = frame else { return nil }
                return Array(text.utf8)
            })
    }

    @Test func allFixturesAreThere() {
        #expect(Self.accepted.count == 16)
        #expect(Self.rejected.count >= 25)
    }

    @Test(arguments: accepted)
    func decodesAndEncodesToTheSameBytes(_ golden: Golden) throws {
        if golden.isFromServer {
            #expect(try ServerMessage(frames: golden.frames).frames() == golden.frames)
        } else {
            #expect(try [WorkerMessage(frames: golden.frames).frame()] == golden.frames)
        }
    }

    @Test(arguments: rejected)
    func isRefused(_ golden: Golden) {
        let error = #expect(throws: WorkerError.self) {
            if golden.isFromServer {
                _ = try ServerMessage(frames: golden.frames)
            } else {
                _ = try WorkerMessage(frames: golden.frames)
            }
        }
        #expect(error?.code == .protocolViolation)
    }
}
