import CheckpointJSON

/// A message is a frame of a 32-bit length of its header, the header, a JSON object, and the payload.
extension HostMessage {
    static let protocolName = "checkpoint-engine-hosts"
    static let version = 1
    private static let header = JSONLimits(
        byteCountMax: 1 << 20, depthMax: 3, stringByteCountMax: 256 << 10)
    private static let lengthByteCount = 4
    /// Hosts and versions; which of them there can be is checked where the group is known.
    private static let numbers = 0...(1 << 20)

    init(frame: [UInt8]) throws(HostError) {
        guard frame.count >= Self.lengthByteCount else { throw Self.violation("a short frame") }
        let length = frame.prefix(Self.lengthByteCount).reduce(0) { $0 << 8 | Int($1) }
        guard length <= frame.count - Self.lengthByteCount else {
            throw Self.violation("a header that is longer than its frame")
        }
        let end = Self.lengthByteCount + length
        do throws(JSONError) {
            let value = try JSONValue.parse(
                Array(frame[Self.lengthByteCount..<end]), limits: Self.header)
            guard case .object(let object) = value else {
                throw JSONError(.unexpectedKind, "the header is no object", at: 0)
            }
            var reader = JSONObjectReader(object)
            self = try Self.message(&reader, payload: Array(frame[end...]))
            try reader.finish()
        } catch {
            throw Self.violation("\(error)")
        }
    }

    private static func message(_ reader: inout JSONObjectReader, payload: [UInt8])
        throws(JSONError) -> HostMessage
    {
        switch try reader.string("type") {
        case "hello":
            guard try reader.string("protocol") == protocolName,
                try reader.integer("version", in: numbers) == version
            else { throw JSONError(.unexpectedKind, "another protocol or version", at: 0) }
            return .hello(
                host: try reader.integer("host", in: numbers),
                hostCount: try reader.integer("hosts", in: numbers),
                name: try reader.string("name"), token: try reader.string("token"))
        case "welcome":
            return .welcome(
                names: try reader.array("names").map { name throws(JSONError) in
                    guard case .string(let text) = name else {
                        throw JSONError(.unexpectedKind, "a name that is no text", at: 0)
                    }
                    return text
                })
        case "put": return .put(key: try reader.string("key"), payload: payload)
        case "withdraw": return .withdraw(key: try reader.string("key"))
        case "all":
            let key = try reader.string("key")
            return .all(key: key, payloads: try split(payload, try reader.array("lengths")))
        case "end":
            return .end(
                scope: try reader.string("scope"), host: try reader.integer("host", in: numbers),
                reason: try reader.string("reason"))
        case "ping": return .ping
        case let type: throw JSONError(.unexpectedKind, "an unknown type \(type)", at: 0)
        }
    }

    private static func split(_ payload: [UInt8], _ lengths: [JSONValue]) throws(JSONError)
        -> [[UInt8]]
    {
        var rest = payload[...]
        var parts: [[UInt8]] = []
        for length in lengths {
            guard case .integer(let integer) = length,
                let count = integer.value(in: 0...rest.count)
            else {
                throw JSONError(.unexpectedKind, "a length that does not fit", at: 0)
            }
            parts.append(Array(rest.prefix(count)))
            rest = rest.dropFirst(count)
        }
        guard rest.isEmpty else {
            throw JSONError(.unexpectedKind, "bytes that belong to nobody", at: 0)
        }
        return parts
    }

    func frame() -> [UInt8] {
        let (fields, payload) = parts
        let header = JSONValue.object(JSONObject(fields)).encoded()
        var frame: [UInt8] = []
        frame.reserveCapacity(Self.lengthByteCount + header.count + payload.count)
        for shift in [24, 16, 8, 0] {
            frame.append(UInt8(truncatingIfNeeded: header.count >> shift))
        }
        frame += header
        frame += payload
        return frame
    }

    private var parts: ([(String, JSONValue)], [UInt8]) {
        switch self {
        case .hello(let host, let hostCount, let name, let token):
            (
                [
                    ("type", .string("hello")), ("protocol", .string(Self.protocolName)),
                    ("version", .integer(Self.version)), ("host", .integer(host)),
                    ("hosts", .integer(hostCount)), ("name", .string(name)),
                    ("token", .string(token)),
                ], []
            )
        case .welcome(let names):
            (
                [("type", .string("welcome")), ("names", .array(names.map(JSONValue.string)))], []
            )
        case .put(let key, let payload):
            ([("type", .string("put")), ("key", .string(key))], payload)
        case .withdraw(let key): ([("type", .string("withdraw")), ("key", .string(key))], [])
        case .all(let key, let payloads):
            (
                [
                    ("type", .string("all")), ("key", .string(key)),
                    ("lengths", .array(payloads.map { .integer($0.count) })),
                ], payloads.flatMap(\.self)
            )
        case .end(let scope, let host, let reason):
            (
                [
                    ("type", .string("end")), ("scope", .string(scope)), ("host", .integer(host)),
                    ("reason", .string(reason)),
                ], []
            )
        case .ping: ([("type", .string("ping"))], [])
        }
    }

    private static func violation(_ why: String) -> HostError {
        HostError(.protocolViolation, "a host sent \(why)")
    }
}
