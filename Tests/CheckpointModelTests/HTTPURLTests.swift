import CheckpointModel
import Testing

struct HTTPURLTests {
    @Test(arguments: [
        ("http://h", "http://h"), ("http://h/", "http://h"),
        ("http://H.Example:80", "http://h.example"),
        ("https://h:443/x/", "https://h/x"), ("http://h:443", "http://h:443"),
        ("http://127.0.0.1:00080", "http://127.0.0.1"), ("http://h_1-x.:1", "http://h_1-x.:1"),
        ("http://[::1]:8000/a%20b", "http://[::1]:8000/a%20b"),
        ("http://[2001:DB8:0:0:1:0:0:1]", "http://[2001:db8::1:0:0:1]"),
        ("http://[::ffff:1.2.3.4]:1", "http://[::ffff:102:304]:1"), ("http://[::]", "http://[::]"),
        ("http://[1:0:0:0:0:0:0:0]", "http://[1::]"),
        ("http://[1:2:3:4:5:6:7::]", "http://[1:2:3:4:5:6:7:0]"),
        ("http://h:65535/engine-0/collective_rpc", "http://h:65535/engine-0/collective_rpc"),
        ("http://h/a/;=:@!$&'()*+,~", "http://h/a/;=:@!$&'()*+,~"), ("http://h//x", "http://h//x"),
    ])
    func canonical(_ text: String, _ expected: String) throws {
        let url = try HTTPURL(text)
        #expect(url.description == expected)
        #expect(try HTTPURL(url.description) == url)
    }

    @Test(arguments: [
        ("", "does not start with http"), ("ftp://h", "does not start with http"),
        ("HTTP://h", "does not start with http"), ("http:/h", "does not start with http"),
        (" http://h", "does not start with http"), ("http://", "the host is missing"),
        ("http:///x", "the host is missing"), ("http://:80", "the host is missing"),
        ("http://h:", "the port \"\""), ("http://h:8a", "the port \"8a\""),
        ("http://h:0", "the port \"0\""),
        ("http://h:65536", "the port \"65536\""),
        ("http://h:18446744073709551616", "the port \"18446744073709551616\""),
        ("http://h:-1", "the port \"-1\""), ("http://h:+80", "the port \"+80\""),
        ("http://h:8 0", "the port \"8 0\""),
        ("http://h:80:81", "several colons"), ("http://::1", "several colons"),
        ("http://[::1", "not closed"), ("http://[::1/x", "not closed"),
        ("http://[::1]80", "a colon and the port"),
        ("http://[]", "no IPv6 address"), ("http://[:]", "no IPv6 address"),
        ("http://[1:2]", "no IPv6 address"),
        ("http://[::1::]", "no IPv6 address"), ("http://[:::]", "no IPv6 address"),
        ("http://[12345::]", "no IPv6 address"), ("http://[1.2.3.4::]", "no IPv6 address"),
        ("http://[1:2:3:4:5:6:7:8::]", "no IPv6 address"),
        ("http://[::1.2.3.256]", "no IPv6 address"),
        ("http://[fe80::1%eth0]", "a zone id"), ("http://[fe80::1%25eth0]", "a zone id"),
        ("http://a b", "other than letters"), ("http://a\n", "other than letters"),
        ("http://a\r\nhost: b", "other than letters"), ("http://\u{0}", "other than letters"),
        ("http://é", "other than letters"), ("http://h\u{301}", "other than letters"),
        ("http://a%20", "other than letters"), ("http://a..b", "is no name"),
        ("http://.", "is no name"),
        ("http://127.1", "ends in a number"), ("http://0x7f.0.0.1", "ends in a number"),
        ("http://1.2.3.256", "ends in a number"), ("http://010.0.0.1", "ends in a number"),
        ("http://a.0x1F", "ends in a number"), ("http://4", "ends in a number"),
        ("http://1.2.3.4.", "ends in a number"),
        ("http://u@h", "a user"), ("http://u:p@h/", "a user"), ("http://h?q", "a query"),
        ("http://h/a#f", "a query"),
        ("http://h/a b", "percent-encoded"), ("http://h/ü", "percent-encoded"),
        ("http://h/\u{7f}", "percent-encoded"),
        ("http://h/a\\b", "percent-encoded"), ("http://h/%2", "two hexadecimal digits"),
        ("http://h/%zz", "two hexadecimal digits"), ("http://h/a/../b", ". or .."),
        ("http://h/%2E%2e", ". or .."),
        ("http://h/./", ". or .."),
        ("http://h/" + String(repeating: "a", count: 4096), "bytes, at most"),
        ("http://" + String(repeating: "a.", count: 127) + "a", "is no name"),
        ("http://" + String(repeating: "a", count: 64), "is no name"),
    ])
    func flaw(_ text: String, _ reason: String) throws {
        let flaw = #expect(throws: AddressFlaw.self) { try HTTPURL(text) }
        let message = try #require(flaw).message
        #expect(message.contains(reason), "\(message)")
        #expect(message.utf8.count < 1000)
        #expect(message.unicodeScalars.allSatisfy { $0 == "…" || (0x20...0x7e).contains($0.value) })
    }

    @Test func pathsAreTakenApart() throws {
        let url = try HTTPURL("https://h:8443/engine-0/collective_rpc")
        #expect(url.origin.description == "https://h:8443")
        let base = try #require(url.removing(pathEnd: "/collective_rpc"))
        #expect(base.description == "https://h:8443/engine-0" && base.path == "/engine-0")
        #expect(base.removing(pathEnd: "/collective_rpc") == nil)
        #expect(base.appending(path: "/wake_up?tags=a") == "https://h:8443/engine-0/wake_up?tags=a")
    }

    @Test func addresses() throws {
        #expect(try NetworkAddress("[::1]:80").description == "[::1]:80")
        #expect(try NetworkHost("::1").text == "::1")
        #expect(HTTPURL(try NetworkAddress("Node-7:19731")).description == "http://node-7:19731")
        #expect(throws: AddressFlaw.self) { try NetworkAddress("h") }
        #expect(throws: AddressFlaw.self) { try NetworkAddress("h:1/") }
        #expect(throws: AddressFlaw.self) { try NetworkAddress("") }
        #expect(throws: AddressFlaw.self) {
            try NetworkAddress(host: try NetworkHost("h"), port: 65_536)
        }
    }
}
