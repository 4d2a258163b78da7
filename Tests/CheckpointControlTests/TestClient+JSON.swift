import CheckpointJSON
import Hummingbird
import HummingbirdTesting
import Testing

/// An answer of the API, parsed.
struct Answer {
    let status: Int
    let headers: HTTPFields
    let body: JSONValue

    init(_ response: TestResponse) throws {
        status = response.status.code
        headers = response.headers
        body = try JSONValue.parse(
            Array(response.body.readableBytesView),
            limits: JSONLimits(byteCountMax: 1 << 24, depthMax: 32, stringByteCountMax: 1 << 20))
    }

    /// The member at the path, as in `error.code`.
    subscript(_ path: String) -> JSONValue? {
        var value = body
        for key in path.split(separator: ".") {
            guard case .object(let object) = value, let member = object[String(key)] else {
                return nil
            }
            value = member
        }
        return value
    }

    func string(_ path: String) -> String {
        guard case .string(let text)? = self[path] else { return "" }
        return text
    }
}

extension TestClientProtocol {
    func get(_ uri: String) async throws -> Answer {
        try Answer(try await execute(uri: uri, method: .get))
    }

    func delete(_ uri: String) async throws -> Answer {
        try Answer(try await execute(uri: uri, method: .delete))
    }

    func post(_ uri: String, _ body: String = "") async throws -> Answer {
        try Answer(
            try await execute(uri: uri, method: .post, body: ByteBuffer(string: body)))
    }

    /// Registers the file under the name and expects success.
    func register(_ name: String, _ path: String) async throws {
        let answer = try await post("/v1/checkpoints/\(name)/files", "{\"files\": [\"\(path)\"]}")
        #expect(answer.status == 200, "\(answer.body)")
    }
}
