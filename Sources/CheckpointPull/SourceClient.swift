import AsyncHTTPClient
import CheckpointJSON
import CheckpointModel
import CheckpointNative
import CheckpointWorker
import NIOCore
import NIOHTTP1

/// The HTTP calls to daemons that are read from. Every call has a deadline; answers are hostile until parsed.
public struct SourceClient: Sendable {
    /// How a source answered what it was asked.
    enum Refusal: Error {
        /// It cannot be reached, or does not answer: it may come back.
        case unreachable(String)
        /// It has answered that it will not: the checkpoint or the lease is gone, or the token is wrong.
        case refused(String)
    }

    private static let callTimeout = Duration.seconds(5)
    private static let catalogTimeout = Duration.seconds(60)
    /// Bytes of an answer at most.
    private static let leaseByteCountMax = 64 << 20
    private static let catalogByteCountMax = 256 << 20
    private static let otherByteCountMax = 1 << 20
    /// What is longer is not parsed on a thread that others wait for.
    private static let inlineByteCountMax = 64 << 10

    private let client: HTTPClient

    public init() {
        var configuration = HTTPClient.Configuration()
        configuration.redirectConfiguration = .disallow
        configuration.timeout.connect = .seconds(3)
        configuration.connectionPool.retryConnectionEstablishment = false
        client = HTTPClient(eventLoopGroupProvider: .singleton, configuration: configuration)
    }

    /// Closes all connections.
    public func shutDown() async { try? await client.shutdown() }

    /// Begins to read `checkpoint`; `reader` is the URL under which others can read from this host.
    func begin(_ checkpoint: CheckpointName, at source: SourceAddress, reader: String?)
        async throws(Refusal) -> SourceLease
    {
        let members: [(String, JSONValue)] = reader.map { [("reader", .string($0))] } ?? []
        let bytes = try await call(
            .POST, "/v1/checkpoints/\(checkpoint)/leases", of: source,
            body: .object(JSONObject(members)), timeout: Self.catalogTimeout,
            byteCountMax: Self.leaseByteCountMax)
        return try await parsed(bytes, of: source) { bytes throws(JSONError) in
            try SourceLease(bytes)
        }
    }

    /// What the tensors are, in the order of delivery, as the source has written it.
    func catalog(of lease: String, at source: SourceAddress) async throws(Refusal) -> [UInt8] {
        try await call(
            .GET, "/v1/leases/\(lease)/catalog", of: source, timeout: Self.catalogTimeout,
            byteCountMax: Self.catalogByteCountMax)
    }

    /// Goes on with a lease, of which so many bytes have come.
    func renew(_ lease: String, received: Int = 0, at source: SourceAddress, timeout: Duration)
        async throws(Refusal) -> LeaseState
    {
        let body = JSONObject([("received", .integer(JSONInteger(received)))])
        let bytes = try await call(
            .POST, "/v1/leases/\(lease)", of: source, body: .object(body), timeout: timeout,
            byteCountMax: Self.leaseByteCountMax)
        return try await parsed(bytes, of: source) { bytes throws(JSONError) in
            try LeaseState(bytes)
        }
    }

    func end(_ lease: String, at source: SourceAddress) async {
        _ = try? await call(.DELETE, "/v1/leases/\(lease)", of: source, timeout: .seconds(2))
    }

    /// The metas that a daemon has gathered, as JSON.
    public func metas(of source: SourceAddress) async throws(PullError) -> [UInt8] {
        do throws(Refusal) {
            return try await call(
                .GET, "/v1/metas", of: source, timeout: Self.catalogTimeout,
                byteCountMax: Self.catalogByteCountMax)
        } catch {
            throw PullError(.noSource, error.message)
        }
    }

    /// The CRC-32C of adjacent chunks.
    func checksums(_ chunks: Range<Int>, of lease: String, at source: SourceAddress)
        async throws(Refusal) -> [UInt32]
    {
        let bytes = try await call(
            .GET, "/v1/leases/\(lease)/checksums/\(chunks.lowerBound)/\(chunks.count)", of: source,
            timeout: Self.catalogTimeout)
        guard bytes.count == 4 * chunks.count else {
            throw .refused("\(source) sent \(bytes.count) bytes for \(chunks.count) checksums")
        }
        return stride(from: 0, to: bytes.count, by: 4).map { place in
            (0..<4).reduce(UInt32(0)) { $0 | UInt32(bytes[place + $1]) << (8 * UInt32($1)) }
        }
    }

    private func parsed<Value: Sendable>(
        _ bytes: [UInt8], of source: SourceAddress,
        _ body: @escaping @Sendable ([UInt8]) throws(JSONError) -> Value
    ) async throws(Refusal) -> Value {
        do throws(JSONError) {
            guard bytes.count > Self.inlineByteCountMax else { return try body(bytes) }
            return try await BlockingThread.run("ckpt-answer") {
                Result { () throws(JSONError) in try body(bytes) }
            }.get()
        } catch {
            throw .refused(
                "\(source) sent an answer that is none of the protocol (\(error)); install the same "
                    + "version of checkpoint-engine on all hosts")
        }
    }
}

// MARK: - Requests

extension SourceClient {
    private func call(
        _ method: HTTPMethod, _ path: String, of source: SourceAddress, body: JSONValue? = nil,
        timeout: Duration = Self.callTimeout, byteCountMax: Int = Self.otherByteCountMax
    ) async throws(Refusal) -> [UInt8] {
        var request = HTTPClientRequest(url: source.origin.appending(path: path))
        request.method = method
        if let token = source.token {
            request.headers.add(name: "authorization", value: "Bearer \(token)")
        }
        if let body {
            request.headers.add(name: "content-type", value: "application/json")
            request.body = .bytes(ByteBuffer(bytes: body.encoded()))
        }
        let (status, bytes) = try await answer(
            to: request, of: source, timeout: timeout, byteCountMax: byteCountMax)
        guard (200..<300).contains(status) else {
            let text = Self.message(bytes)
            // A gateway or an overload passes; that something is missing there does not.
            // 409: it is busy, such as with the registration of what is asked for.
            if status >= 502 || status == 409 {
                throw .unreachable("\(source) answered \(status): \(text)")
            }
            throw .refused("\(source) answered \(status): \(text)")
        }
        return bytes
    }

    private func answer(
        to request: HTTPClientRequest, of source: SourceAddress, timeout: Duration,
        byteCountMax: Int
    ) async throws(Refusal) -> (status: Int, bytes: [UInt8]) {
        let answer: HTTPExchange.Answer
        do {
            answer = try await HTTPExchange.perform(
                request, with: client, timeout: timeout, byteCountMax: byteCountMax)
        } catch {
            throw .unreachable(
                error as? HTTPClientError == .deadlineExceeded
                    ? "\(source) has not answered within \(timeout)"
                    : "\(source) cannot be reached: \(error)")
        }
        guard answer.isWhole else {
            throw .refused("\(source) sent an answer of more than \(byteCountMax) bytes")
        }
        return (answer.status, answer.bytes)
    }

    /// The message of an error's body, or its beginning.
    private static func message(_ bytes: [UInt8]) -> String {
        let limits = JSONLimits(byteCountMax: 1 << 20, depthMax: 8, stringByteCountMax: 1 << 20)
        if case .object(let object)? = try? JSONValue.parse(bytes, limits: limits),
            case .object(let error)? = object["error"], case .string(let text)? = error["message"]
        {
            return text
        }
        return String(decoding: bytes.prefix(300), as: UTF8.self)
    }
}
