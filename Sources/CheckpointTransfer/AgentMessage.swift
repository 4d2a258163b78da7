import CheckpointJSON
import CheckpointModel

/// One line from the agent.
enum AgentMessage: Sendable, Hashable {
    /// The first line of an agent that works.
    struct Ready: Sendable, Hashable {
        let session: String
        let protocolName: String
        let devices: [String]
        let version: String
    }

    /// What an answer says: only a mapping has an address, only a read has seconds.
    struct Answer: Sendable, Hashable {
        var address: UInt?
        var seconds: Double?
    }

    case ready(Ready)
    /// The first line of an agent that cannot work.
    case failed(String)
    case answer(id: Int, Answer)
    /// The request failed; without a number the agent did not understand it.
    case refusal(id: Int?, String)

    private static let limits = JSONLimits(
        byteCountMax: 1 << 16, depthMax: 2, stringByteCountMax: 1 << 14)
    /// The most bytes of a line that can be one.
    static var byteCountMax: Int { limits.byteCountMax }
    private static let ids = 0...Int.max
    /// Those of a process: room is left for offsets.
    private static let addresses = 1...(1 << 62)
    /// No transfer takes so long: a century.
    private static let secondsMax = 3.2e9

    /// Parses a line; refuses missing, additional and wrong members.
    static func parse(_ line: [UInt8]) throws(JSONError) -> AgentMessage {
        guard case .object(let object) = try JSONValue.parse(line, limits: limits) else {
            throw JSONError(.unexpectedKind, "expected an object")
        }
        var reader = JSONObjectReader(object)
        let message =
            object["event"] == nil ? try answer(object, &reader) : try event(&reader)
        try reader.finish()
        return message
    }

    private static func event(_ reader: inout JSONObjectReader) throws(JSONError) -> AgentMessage {
        let name = try reader.string("event")
        switch name {
        case "failed": return .failed(try reader.string("error"))
        case "ready":
            let session = try reader.string("session")
            guard (try? NetworkAddress(session)) != nil else {
                throw JSONError(
                    .unexpectedKind, "the session \(JSONError.quoted(session)) is not host:port")
            }
            var devices: [String] = []
            for device in try reader.array("devices") {
                guard case .string(let name) = device else {
                    throw JSONError(.unexpectedKind, "a device is not a string")
                }
                devices.append(name)
            }
            return .ready(
                Ready(
                    session: session, protocolName: try reader.string("protocol"),
                    devices: devices, version: try reader.string("version")))
        default:
            throw JSONError(.unexpectedKind, "the event \(JSONError.quoted(name)) is not known")
        }
    }

    private static func answer(_ object: JSONObject, _ reader: inout JSONObjectReader)
        throws(JSONError) -> AgentMessage
    {
        if object["error"] != nil {
            let text = try reader.string("error")
            if case .null = try reader.value("id") { return .refusal(id: nil, text) }
            return .refusal(id: try reader.integer("id", in: ids), text)
        }
        let id = try reader.integer("id", in: ids)
        var answer = Answer()
        if object["address"] != nil {
            answer.address = UInt(try reader.integer("address", in: addresses))
        }
        if object["seconds"] != nil { answer.seconds = try seconds(&reader) }
        return .answer(id: id, answer)
    }

    private static func seconds(_ reader: inout JSONObjectReader) throws(JSONError) -> Double {
        let seconds: Double
        switch try reader.value("seconds") {
        case .integer(let integer): seconds = integer.approximation
        case .number(let number): seconds = number
        case .null, .bool, .string, .array, .object:
            throw JSONError(.unexpectedKind, "the seconds are not a number")
        }
        guard seconds >= 0, seconds <= secondsMax else {
            throw JSONError(.numberRange, "\(seconds) seconds are no duration of a transfer")
        }
        return seconds
    }
}
