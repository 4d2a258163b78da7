import Testing

@testable import CheckpointControl

@Suite("Addresses and tokens")
struct AddressTests {
    @Test(arguments: [
        ("127.0.0.1", true), ("127.9.8.7", true), ("localhost", true), ("::1", true),
        ("0.0.0.0", false), ("::", false), ("10.0.0.1", false), ("127.0.0.1.example.org", false),
        ("127.0.0", false), ("127.0.0.256", false), ("127.0.0.+1", false), ("myhost", false),
    ])
    func knowsLoopback(host: String, isLocal: Bool) {
        #expect(ControlAddress.tcp(host: host, port: 1).isLocal == isLocal)
        #expect(ControlAddress.unix(path: host).isLocal)
    }

    @Test func writesAddresses() {
        #expect(ControlAddress.tcp(host: "::1", port: 80).description == "[::1]:80")
        #expect(ControlAddress.tcp(host: "127.0.0.1", port: 80).description == "127.0.0.1:80")
        #expect(ControlAddress.unix(path: "/run/x").description == "/run/x")
    }

    @Test func checksTokens() throws {
        #expect(BearerToken("short") == nil)
        #expect(BearerToken(String(repeating: "a", count: 15)) == nil)
        #expect(BearerToken(String(repeating: "a", count: 4097)) == nil)
        #expect(BearerToken("has a space in the middle") == nil)
        #expect(BearerToken("has-a-tab\tin-the-middle") == nil)
        let token = try #require(BearerToken(" \n" + ControlFixture.token + "\r\n"))
        #expect(token.isCarried(by: "Bearer " + ControlFixture.token))
        #expect(!token.isCarried(by: nil))
        #expect(!token.isCarried(by: ""))
        #expect(!token.isCarried(by: ControlFixture.token))
        // A repetition of the token must not pass for it.
        #expect(!token.isCarried(by: "Bearer " + ControlFixture.token + ControlFixture.token))
    }

    @Test func othersNeedAToken() async throws {
        try await ControlFixture.with { fixture in
            let open = ControlConfiguration(
                address: .tcp(host: "0.0.0.0", port: 0), version: "1")
            let error = #expect(throws: ControlError.self) {
                try ControlServer(
                    engine: fixture.engine, configuration: open, logger: ControlFixture.quiet)
            }
            #expect(error?.code == .listenFailed)
            #expect(error?.message.contains("--token-file") == true)
        }
    }
}
