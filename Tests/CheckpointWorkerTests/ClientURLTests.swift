import AsyncHTTPClient
import CheckpointModel
import CheckpointTesting
import Foundation
import Testing

@testable import CheckpointWorker

/// What the client library makes of the URLs that it is given.
struct ClientURLTests {
    /// Pieces that URLs are made of, and others that they break at.
    private static let pieces = [
        "http://", "https://", "h", "H.x", "127.0.0.1", "[::1]", "[fe80::1%25a]", "[::", "]", "[",
        ":", "80", "443", "0", "65535", "65536", "99999999999999999999", "8a", "/", "//", "..", ".",
        "%41", "%2", "%", "@", "?", "#", " ", "\t", "\r\n", "\u{0}", "\u{7f}", "é", "e\u{301}",
        "\\", "\"",
        "a-b_c~", "!$&'()*+,;=", "0x7f", "1.2.3", "{", "|", "^", "`", "<", "collective_rpc",
    ]

    /// Every text that is taken means the same to the client: nothing is thrown, nothing ends the process.
    @Test func everyURLIsReadAlike() throws {
        let seed = UInt64.random(in: 0 ... .max)
        var generator = SeededGenerator(seed: seed)
        var takenCount = 0
        for _ in 0..<40_000 {
            var text = Bool.random(using: &generator) ? "http://h" : "http://"
            for _ in 0..<Int.random(in: 0...6, using: &generator) {
                text += Self.pieces.randomElement(using: &generator) ?? ""
            }
            guard let url = try? HTTPURL(text) else { continue }
            takenCount += 1
            let request = try HTTPClient.Request(url: url.appending(path: "/x?y=1"))
            #expect(request.scheme == url.scheme.rawValue, "\(text), seed \(seed)")
            #expect(request.host == url.address.host.description, "\(text), seed \(seed)")
            #expect(request.port == url.address.port, "\(text), seed \(seed)")
            #expect(
                "\(request.url)" == url.appending(path: "/x?y=1"), "\(text), seed \(seed)")
        }
        #expect(takenCount > 1000, "seed \(seed)")
    }

    @Test(arguments: ["/tmp/a b.sock", "/é/%2f?#", "/" + String(repeating: "x", count: 106)])
    func unixSockets(_ path: String) throws {
        let engine = try EngineAddress(
            HTTPURL("http://h/engine-0/collective_rpc"), unixSocketPath: path)
        let text = engine.url("/health")
        let request = try HTTPClient.Request(url: text)
        #expect(
            request.scheme == "http+unix" && URL(string: text)?.host(percentEncoded: false) == path)
        #expect(request.url.description.hasSuffix("/engine-0/health"))
    }
}
