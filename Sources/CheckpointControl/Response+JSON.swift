import FoundationEssentials
import Hummingbird
import NIOCore

extension Response {
    /// A JSON answer. Keys are sorted, so that equal values give equal bytes.
    static func json(
        _ value: some Encodable, status: HTTPResponse.Status = .ok, headers: HTTPFields = [:]
    ) throws(ControlError) -> Response {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        let text: Data
        do {
            text = try encoder.encode(value)
        } catch {
            throw ControlError(
                .internalError, "the answer cannot be written as JSON", cause: "\(error)")
        }
        var body = ByteBuffer()
        body.reserveCapacity(text.count + 1)
        body.writeBytes(text)
        // A shell's prompt starts on a line of its own after curl.
        body.writeString("\n")
        return Response(body, type: "application/json", status: status, headers: headers)
    }

    /// The answer for a failed request.
    static func failure(_ error: ControlError) -> Response {
        var headers: HTTPFields = [:]
        if error.code == .unauthorized { headers[.wwwAuthenticate] = "Bearer" }
        if let response = try? json(ErrorBody(error: error), status: error.status, headers: headers)
        {
            return response
        }
        return Response(status: error.status)
    }

    /// An answer of plain text in the given media type.
    static func text(_ text: String, type: String) -> Response {
        Response(ByteBuffer(string: text), type: type, status: .ok, headers: [:])
    }

    /// An answer of bytes in the given media type.
    static func bytes(_ bytes: [UInt8], type: String) -> Response {
        Response(ByteBuffer(bytes: bytes), type: type, status: .ok, headers: [:])
    }

    private init(
        _ body: ByteBuffer, type: String, status: HTTPResponse.Status, headers: HTTPFields
    ) {
        var headers = headers
        headers[.contentType] = type
        headers[.contentLength] = String(body.readableBytes)
        headers[.cacheControl] = "no-store"
        self.init(status: status, headers: headers, body: ResponseBody(byteBuffer: body))
    }
}
