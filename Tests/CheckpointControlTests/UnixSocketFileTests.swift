import FoundationEssentials
import Testing

@testable import CheckpointControl

@Suite("Socket files")
struct UnixSocketFileTests {
    @Test func onlyItsOwnFileIsRemoved() throws {
        let path = "/tmp/control-socket-\(UInt32.random(in: 0...UInt32.max))"
        let files = FileManager.default
        defer { try? files.removeItem(atPath: path) }
        let file = UnixSocketFile(path: path)
        try file.checkFree()
        #expect(throws: ControlError.self) { try file.protect() }
        try Data([1]).write(to: URL(filePath: path))
        let identity = try file.protect()
        // Another took the name meanwhile.
        try files.moveItem(atPath: path, toPath: path + ".old")
        defer { try? files.removeItem(atPath: path + ".old") }
        try Data([2]).write(to: URL(filePath: path))
        file.remove(identity)
        #expect(files.fileExists(atPath: path))
        file.remove(try file.protect())
        #expect(!files.fileExists(atPath: path))
    }
}
