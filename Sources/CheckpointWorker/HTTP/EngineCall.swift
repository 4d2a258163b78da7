import CheckpointJSON
import NIOHTTP1

/// One request to an engine's HTTP server.
struct EngineCall: Sendable {
    let method: HTTPMethod
    /// The path with its query.
    let path: String
    /// `nil` sends no body.
    var body: JSONValue?

    static func get(_ path: String) -> EngineCall { EngineCall(method: .GET, path: path) }

    static func post(_ path: String, _ body: JSONValue? = nil) -> EngineCall {
        EngineCall(method: .POST, path: path, body: body)
    }

    /// `POST /pause`, without the query.
    var name: String { "\(method) \(path.prefix { $0 != "?" })" }
}

/// What an engine answered.
struct EngineAnswer: Sendable {
    /// Longer answers are cut: they are only quoted in messages.
    static let byteCountMax = 1 << 20
    private static let quotedCountMax = 500
    private static let limits = JSONLimits(
        byteCountMax: byteCountMax, depthMax: 64, stringByteCountMax: byteCountMax)

    let status: Int
    let body: [UInt8]

    var isSuccess: Bool { (200..<300).contains(status) }
    var text: String { String(decoding: body, as: UTF8.self) }

    /// The status and the beginning of the text.
    var summary: String {
        text.isEmpty ? "\(status)" : "\(status): \(text.prefix(Self.quotedCountMax))"
    }

    /// The body as an object; `nil` where it is none.
    var object: JSONObject? {
        guard case .object(let object)? = try? JSONValue.parse(body, limits: Self.limits) else {
            return nil
        }
        return object
    }
}
