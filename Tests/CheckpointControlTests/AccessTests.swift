import Hummingbird
import HummingbirdTesting
import Logging
import Synchronization
import Testing

@testable import CheckpointControl

@Suite("Who may do what")
struct AccessTests {
    private static let reader = "reader-0123456789abcdef"

    private func configuration(_ fixture: ControlFixture) throws -> ControlConfiguration {
        ControlConfiguration(
            address: .tcp(host: "127.0.0.1", port: 0),
            access: .tokens(
                administrator: try #require(BearerToken(ControlFixture.token)),
                reader: BearerToken(Self.reader)),
            version: "1")
    }

    private static let orders: [(HTTPRequest.Method, String)] = [
        (.post, "/v1/metas"), (.delete, "/v1/checkpoints/x"), (.post, "/v1/checkpoints/x/files"),
        (.post, "/v1/checkpoints/x/gather-metas"), (.post, "/v1/checkpoints/x/update"),
        (.post, "/v1/checkpoints/x/parts"), (.post, "/v1/checkpoints/x/open-update"),
        (.post, "/v1/checkpoints/x/pull"), (.post, "/v1/updates/update-1/calls/0"),
        (.delete, "/v1/updates/update-1"), (.post, "/v1/gpus/release"),
    ]

    private static let looks: [(HTTPRequest.Method, String)] = [
        (.get, "/v1/version"), (.get, "/metrics"), (.get, "/v1/metas"), (.get, "/v1/checkpoints"),
        (.get, "/v1/checkpoints/x"), (.post, "/v1/checkpoints/x/leases"), (.post, "/v1/leases/x"),
        (.delete, "/v1/leases/x"), (.get, "/v1/leases/x/catalog"),
        (.get, "/v1/leases/x/checksums/0/1"), (.get, "/v1/updates/update-1"),
        (.get, "/v1/updates/update-1/trace"),
    ]

    @Test func aReaderChangesNothing() async throws {
        try await ControlFixture.with { fixture in
            let path = try fixture.writeCheckpoint("a")
            try await fixture.register("kept", path)
            let guarded = fixture.application(try configuration(fixture))
            try await guarded.test(.router) { client in
                let headers: HTTPFields = [.authorization: "Bearer \(Self.reader)"]
                for (method, uri) in Self.orders {
                    let answer = try Answer(
                        try await client.execute(uri: uri, method: method, headers: headers))
                    #expect(answer.status == 403, "\(method) \(uri)")
                    #expect(answer.string("error.code") == "forbidden")
                    #expect(answer.string("error.message").contains("--token-file"))
                }
                let delete = try await client.execute(
                    uri: "/v1/checkpoints/kept", method: .delete, headers: headers)
                #expect(delete.status == .forbidden)
                let kept = try await client.execute(
                    uri: "/v1/checkpoints/kept", method: .get, headers: headers)
                #expect(kept.status == .ok)
            }
        }
    }

    @Test func aReaderLooksAndReads() async throws {
        try await ControlFixture.with { fixture in
            let guarded = fixture.application(try configuration(fixture))
            try await guarded.test(.router) { client in
                for (method, uri) in Self.looks {
                    let answer = try await client.execute(
                        uri: uri, method: method,
                        headers: [.authorization: "Bearer \(Self.reader)"])
                    #expect(answer.status != .forbidden, "\(method) \(uri)")
                    #expect(answer.status != .unauthorized, "\(method) \(uri)")
                }
            }
        }
    }

    @Test func strangersDoNeither() async throws {
        try await ControlFixture.with { fixture in
            let guarded = fixture.application(try configuration(fixture))
            try await guarded.test(.router) { client in
                for (method, uri) in Self.orders + Self.looks + [(.get, "/v1/nothing")] {
                    let answer = try await client.execute(uri: uri, method: method)
                    #expect(answer.status == .unauthorized, "\(method) \(uri)")
                }
                let health = try await client.execute(uri: "/v1/healthz", method: .get)
                #expect(health.status == .ok)
            }
        }
    }

    @Test(arguments: [
        ("localhost", true), ("LOCALHOST:19731", true), ("127.0.0.1:19731", true),
        ("[::1]:1", true),
        ("10.0.0.7", true), ("node7:19731", true), ("advertised.example", true),
        ("page.example", false), ("page.example:19731", false), ("127.0.0.1.example.org", false),
        ("localhost.example", false), ("1.2.3.+4", false), ("1.2.3", false),
    ])
    func pagesOfOtherNamesAreRefused(authority: String, isAllowed: Bool) {
        let names = HostNames(["node7", "advertised.example:19731"])
        #expect(names.allow(authority) == isAllowed)
        #expect(names.allow(nil))
    }

    @Test func refusalsAreToldOnceASecond() {
        let lines = RecordedLines()
        let log = RefusalLog(Logger(label: "tests") { _ in lines.handler })
        let start = ContinuousClock.now
        for index in 0..<1000 { log.note(["path": "\(index)"], now: start + .microseconds(index)) }
        log.note(["path": "later"], now: start + .seconds(2))
        let told = lines.metadata
        #expect(told.count == 2)
        #expect(told.first?["path"] == "0")
        #expect(told.last?["path"] == "later")
        #expect(told.last?["refused_since_the_last_line"] == "1000")
    }
}

/// What was logged.
private final class RecordedLines: Sendable {
    private struct Handler: LogHandler {
        let lines: RecordedLines
        var metadata: Logger.Metadata = [:]
        var logLevel = Logger.Level.trace

        subscript(metadataKey key: String) -> Logger.Metadata.Value? {
            get { metadata[key] }
            set { metadata[key] = newValue }
        }

        func log(event: LogEvent) {
            lines.told.withLock { $0.append(event.metadata ?? [:]) }
        }
    }

    private let told = Mutex<[Logger.Metadata]>([])

    var handler: any LogHandler { Handler(lines: self) }
    var metadata: [Logger.Metadata] { told.withLock { $0 } }
}
