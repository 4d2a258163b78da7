import CheckpointJSON
import CheckpointNative
import Hummingbird
import NIOCore

/// Request bodies.
extension ControlRoutes {
    /// No route needs more; deeper nesting is refused before it is parsed.
    private static let depthMax = 8

    /// The body as one JSON object.
    func jsonBody(_ request: Request) async throws -> RequestFields {
        let bytes = try await bodyBytes(request)
        guard !bytes.isEmpty else {
            throw ControlError.invalid(
                "the body is empty: expected a JSON object, see docs/http-api.md")
        }
        return try await fields(bytes)
    }

    /// For routes without fields: takes an empty body or an empty object.
    func refuseFields(_ request: Request) async throws {
        try await optionalJSONBody(request).finish()
    }

    /// The fields of a body that may be empty.
    func optionalJSONBody(_ request: Request) async throws -> RequestFields {
        let bytes = try await bodyBytes(request)
        return bytes.isEmpty ? RequestFields(JSONObject([])) : try await fields(bytes)
    }

    /// Larger bodies are parsed on a thread of their own: threads of tasks are few, and all wait for them.
    private static let byteCountParsedAtOnce = 64 << 10

    private func fields(_ bytes: [UInt8]) async throws(ControlError) -> RequestFields {
        let limits = JSONLimits(
            byteCountMax: configuration.bodyByteCountMax, depthMax: Self.depthMax,
            stringByteCountMax: configuration.bodyByteCountMax)
        guard bytes.count > Self.byteCountParsedAtOnce else {
            return try Self.fields(bytes, limits)
        }
        return try await BlockingThread.run("request-body") { () throws(ControlError) in
            try Self.fields(bytes, limits)
        }
    }

    private static func fields(_ bytes: [UInt8], _ limits: JSONLimits) throws(ControlError)
        -> RequestFields
    {
        let value: JSONValue
        do {
            value = try JSONValue.parse(bytes, limits: limits)
        } catch {
            throw .invalid("the body is not valid JSON: \(error)")
        }
        guard case .object(let object) = value else {
            throw .invalid("the body: expected a JSON object, got \(RequestFields.words(value))")
        }
        return RequestFields(object)
    }

    /// The whole body, up to the limit.
    func bodyBytes(_ request: Request, byteCountMax: Int? = nil) async throws -> [UInt8] {
        let max = byteCountMax ?? configuration.bodyByteCountMax
        do {
            let buffer = try await request.body.collect(upTo: max)
            return Array(buffer.readableBytesView)
        } catch is NIOTooManyBytesError {
            throw ControlError(
                .contentTooLarge,
                "the body has more than \(max) bytes: name a directory instead of its files")
        } catch {
            throw ControlError.invalid(
                "the body could not be read to its end", cause: "\(error)")
        }
    }
}
