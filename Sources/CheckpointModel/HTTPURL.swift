/// The URL of an HTTP server, or of a place under it, parsed once: what a client library is given is made of
/// its parts, never of the text that came from outside.
public struct HTTPURL: Hashable, Sendable, CustomStringConvertible {
    public enum Scheme: String, Sendable, CaseIterable {
        case http
        case https

        public var portDefault: Int {
            switch self {
            case .http: 80
            case .https: 443
            }
        }
    }

    public static let byteCountMax = 4096
    public static let form = "http://HOST:PORT/PATH"

    public let scheme: Scheme
    public let address: NetworkAddress
    /// From a slash on and without one at its end, with its percent-encodings; empty for the server itself.
    public let path: String
    /// The canonical text: equal URLs have equal ones. A port that is the scheme's is left out.
    public let description: String

    /// Takes `http[s]://HOST[:PORT][/PATH]`, of at most ``byteCountMax`` bytes; no user, query and fragment.
    public init(_ text: String) throws(AddressFlaw) {
        do throws(AddressFlaw) {
            let bytes = Array(text.utf8)
            guard bytes.count <= Self.byteCountMax else {
                throw AddressFlaw(
                    "it has \(bytes.count) bytes, at most \(Self.byteCountMax) can be")
            }
            let scheme = Scheme.allCases.first { bytes.starts(with: "\($0.rawValue)://".utf8) }
            guard let scheme else {
                throw AddressFlaw("it does not start with http:// or https://")
            }
            let rest = bytes[(scheme.rawValue.utf8.count + "://".utf8.count)...]
            let pathStart = rest.firstIndex(of: UInt8(ascii: "/")) ?? rest.endIndex
            try Self.checkPlain(rest)
            self.init(
                scheme: scheme,
                address: try NetworkAddress(
                    rest[..<pathStart], portDefault: scheme.portDefault),
                path: try Self.path(rest[pathStart...]))
        } catch {
            throw AddressFlaw(in: text, form: Self.form, error)
        }
    }

    /// `http://HOST:PORT`.
    public init(_ address: NetworkAddress) {
        self.init(scheme: .http, address: address, path: "")
    }

    private init(scheme: Scheme, address: NetworkAddress, path: String) {
        self.scheme = scheme
        self.address = address
        self.path = path
        let place =
            address.port == scheme.portDefault
            ? address.host.description : address.description
        description = "\(scheme.rawValue)://\(place)\(path)"
    }

    /// The server: the URL without its path.
    public var origin: HTTPURL { HTTPURL(scheme: scheme, address: address, path: "") }

    /// The URL without `end` at its path's end; `nil` where the path does not end so.
    public func removing(pathEnd end: String) -> HTTPURL? {
        guard path.hasSuffix(end) else { return nil }
        return HTTPURL(
            scheme: scheme, address: address, path: String(path.dropLast(end.count)))
    }

    /// The text for a client library: what lies at `path`, which is ours, starts with a slash and may have a
    /// query.
    public func appending(path: String) -> String {
        precondition(
            path.hasPrefix("/") && path.utf8.allSatisfy { Self.isAllowed($0) || $0 == Self.query },
            "paths are made of checked names")
        return description + path
    }

    /// What is wrong with this URL, for those who take only some.
    public func flaw(_ reason: String) -> AddressFlaw {
        AddressFlaw("\(self) cannot be taken: \(reason)")
    }

    /// Names what URLs in general have, and these have not.
    private static func checkPlain(_ bytes: ArraySlice<UInt8>) throws(AddressFlaw) {
        let authority = bytes.prefix { $0 != UInt8(ascii: "/") }
        guard !authority.contains(UInt8(ascii: "@")) else {
            throw AddressFlaw("a user and a password cannot be a part of it")
        }
        guard !bytes.contains(query), !bytes.contains(UInt8(ascii: "#")) else {
            throw AddressFlaw("a query (?) and a fragment (#) cannot be a part of it")
        }
    }

    private static func path(_ bytes: ArraySlice<UInt8>) throws(AddressFlaw) -> String {
        guard let wrong = bytes.first(where: { !isAllowed($0) }) else {
            try checkSegments(bytes)
            var path = bytes
            while path.last == UInt8(ascii: "/") { path = path.dropLast() }
            return String(decoding: path, as: UTF8.self)
        }
        throw AddressFlaw(
            "its path has the byte \(AddressFlaw.quoted([wrong])), which has to be percent-encoded")
    }

    /// Percent-encodings are whole, and no segment leads upwards, which servers and clients read differently.
    private static func checkSegments(_ bytes: ArraySlice<UInt8>) throws(AddressFlaw) {
        for segment in bytes.split(separator: UInt8(ascii: "/")) {
            var decoded: [UInt8] = []
            var rest = segment
            while let byte = rest.popFirst() {
                guard byte == UInt8(ascii: "%") else {
                    decoded.append(byte)
                    continue
                }
                guard let high = rest.popFirst().flatMap(HexText.value(ofEither:)),
                    let low = rest.popFirst().flatMap(HexText.value(ofEither:))
                else { throw AddressFlaw("its path has a % without two hexadecimal digits") }
                decoded.append(high << 4 | low)
            }
            guard decoded != Array(".".utf8), decoded != Array("..".utf8) else {
                throw AddressFlaw("its path has a part that is . or ..")
            }
        }
    }

    private static let query = UInt8(ascii: "?")

    /// Bytes of paths by RFC 3986.
    private static func isAllowed(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"):
            true
        default: "/-._~!$&'()*+,;=:@%".utf8.contains(byte)
        }
    }
}
