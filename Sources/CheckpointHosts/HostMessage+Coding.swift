import CheckpointJSON

/// The header of a message: all of it, or what has to be known of a payload before any of it is read.
///
/// A message is a frame of a 32-bit length of its header, the header, a JSON object, and the payload.
enum HostHeader: Hashable {
    case whole(HostMessage)
    case put(key: String)
    case all(key: String, byteCounts: [Int])

    /// Which lengths the payload may have.
    var payloadByteCounts: ClosedRange<Int> {
        switch self {
        case .whole: 0...0
        case .put: 0...HostLimits.payloadByteCountMax
        case .all(_, let byteCounts): byteCounts.reduce(0, +)...byteCounts.reduce(0, +)
        }
    }

    /// The message with its payload, which has a length of ``payloadByteCounts``.
    func message(_ payload: [UInt8]) -> HostMessage {
        switch self {
        case .whole(let message): return message
        case .put(let key): return .put(key: key, payload: payload)
        case .all(let key, let byteCounts):
            var rest = payload[...]
            var payloads: [[UInt8]] = []
            for byteCount in byteCounts {
                payloads.append(Array(rest.prefix(byteCount)))
                rest = rest.dropFirst(byteCount)
            }
            return .all(key: key, payloads: payloads)
        }
    }
}

// MARK: - Reading

extension HostHeader {
    private static let limits = JSONLimits(
        byteCountMax: HostLimits.headerByteCountMax, depthMax: 3, stringByteCountMax: 256 << 10)
    private static let hosts = 0...HostLimits.hostCountMax

    init(_ bytes: [UInt8]) throws(HostError) {
        do throws(JSONError) {
            guard case .object(let object) = try JSONValue.parse(bytes, limits: Self.limits) else {
                throw JSONError(.unexpectedKind, "the header is no object", at: 0)
            }
            var reader = JSONObjectReader(object)
            self = try Self.header(&reader)
            try reader.finish()
        } catch {
            throw HostError(.protocolViolation, "a host sent \(error)")
        }
    }

    private static func header(_ reader: inout JSONObjectReader) throws(JSONError) -> HostHeader {
        switch try reader.string("type") {
        case "put": return .put(key: try reader.string("key"))
        case "all":
            return .all(
                key: try reader.string("key"),
                byteCounts: try byteCounts(try reader.array("lengths")))
        case let type: return .whole(try message(type, &reader))
        }
    }

    private static func message(_ type: String, _ reader: inout JSONObjectReader)
        throws(JSONError) -> HostMessage
    {
        switch type {
        case "hello":
            guard try reader.string("protocol") == HostMessage.protocolName,
                try reader.integer("version", in: 0...Int.max) == HostMessage.version
            else { throw JSONError(.unexpectedKind, "another protocol or version", at: 0) }
            return .hello(
                host: try reader.integer("host", in: hosts),
                hostCount: try reader.integer("hosts", in: hosts),
                name: try reader.string("name"), token: try reader.string("token"))
        case "welcome": return .welcome(names: try texts(try reader.array("names")))
        case "refused": return .refused(reason: try reader.string("reason"))
        case "withdraw":
            let reason = try reader.value("reason")
            return .withdraw(
                key: try reader.string("key"),
                reason: reason == .null ? nil : try reader.string("reason"))
        case "left":
            return .left(
                key: try reader.string("key"), host: try reader.integer("host", in: hosts),
                reason: try reader.string("reason"))
        case "end":
            return .end(
                scope: try reader.string("scope"), host: try reader.integer("host", in: hosts),
                reason: try reader.string("reason"))
        case "ping": return .ping
        case let type: throw JSONError(.unexpectedKind, "an unknown type \(type)", at: 0)
        }
    }

    private static func texts(_ values: [JSONValue]) throws(JSONError) -> [String] {
        try values.map { value throws(JSONError) in
            guard case .string(let text) = value else {
                throw JSONError(.unexpectedKind, "a name that is no text", at: 0)
            }
            return text
        }
    }

    /// Lengths whose sum fits into a frame.
    private static func byteCounts(_ values: [JSONValue]) throws(JSONError) -> [Int] {
        var rest = HostLimits.frameByteCountMax
        return try values.map { value throws(JSONError) in
            guard case .integer(let integer) = value, let byteCount = integer.value(in: 0...rest)
            else { throw JSONError(.unexpectedKind, "a length that does not fit", at: 0) }
            rest -= byteCount
            return byteCount
        }
    }
}

// MARK: - Writing

extension HostMessage {
    static let protocolName = "checkpoint-engine-hosts"
    static let version = 2

    /// The header and what follows it.
    var parts: (header: [UInt8], payloads: [[UInt8]]) {
        let (type, fields) = self.fields
        let header = JSONValue.object(JSONObject([("type", .string(type))] + fields)).encoded()
        switch self {
        case .put(_, let payload): return (header, [payload])
        case .all(_, let payloads): return (header, payloads)
        case .hello, .welcome, .refused, .withdraw, .left, .end, .ping: return (header, [])
        }
    }

    private var fields: (String, [(String, JSONValue)]) {
        switch self {
        case .hello(let host, let hostCount, let name, let token):
            (
                "hello",
                [
                    ("protocol", .string(Self.protocolName)), ("version", .integer(Self.version)),
                    ("host", .integer(host)), ("hosts", .integer(hostCount)),
                    ("name", .string(name)), ("token", .string(token)),
                ]
            )
        case .welcome(let names): ("welcome", [("names", .array(names.map(JSONValue.string)))])
        case .refused(let reason): ("refused", [("reason", .string(reason))])
        case .put(let key, _): ("put", [("key", .string(key))])
        case .withdraw(let key, let reason):
            (
                "withdraw",
                [("key", .string(key)), ("reason", reason.map(JSONValue.string) ?? .null)]
            )
        case .left(let key, let host, let reason):
            (
                "left",
                [("key", .string(key)), ("host", .integer(host)), ("reason", .string(reason))]
            )
        case .all(let key, let payloads):
            (
                "all",
                [
                    ("key", .string(key)),
                    ("lengths", .array(payloads.map { .integer($0.count) })),
                ]
            )
        case .end(let scope, let host, let reason):
            (
                "end",
                [("scope", .string(scope)), ("host", .integer(host)), ("reason", .string(reason))]
            )
        case .ping: ("ping", [])
        }
    }
}
