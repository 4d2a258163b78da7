import AsyncHTTPClient
import CNative
import CheckpointJSON
public import CheckpointModel
import NIOCore
import NIOHTTP1

/// The HTTP calls that an update makes to the engines: ready?, reload, reset the cache.
///
/// Every call has a deadline. Source: vLLM's API server (development mode).
public struct EngineClient: Sendable {
    /// Longer answers are cut: they are only quoted in messages.
    private static let answerByteCountMax = 64 << 10
    private static let answerLimits = JSONLimits(
        byteCountMax: answerByteCountMax, depthMax: 8, stringByteCountMax: answerByteCountMax)
    private static let probeTimeout = Duration.seconds(5)
    private static let probeInterval = Duration.milliseconds(500)
    private let client: HTTPClient

    public init() {
        var configuration = HTTPClient.Configuration()
        configuration.redirectConfiguration = .disallow
        configuration.timeout.connect = .seconds(5)
        // A reload may take the whole update; the deadline of the request is the limit.
        configuration.timeout.read = nil
        configuration.connectionPool.retryConnectionEstablishment = false
        self.client = HTTPClient(
            eventLoopGroupProvider: .singleton, configuration: configuration)
    }

    /// Closes all connections.
    public func shutDown() async {
        try? await client.shutdown()
    }

    /// Waits until `GET /health` answers with 200, or throws what the engine said last.
    public func waitUntilReady(
        _ engine: EngineAddress, deadline: ContinuousClock.Instant,
        onWait: @Sendable (_ lastAnswer: String) -> Void
    ) async throws(WorkerError) {
        var last = "it was not asked yet"
        repeat {
            do {
                let timeout = min(Self.probeTimeout, ContinuousClock.now.duration(to: deadline))
                let answer = try await send(.GET, "/health", to: engine, timeout: timeout)
                if answer.status == 200 { return }
                last = "GET /health answered \(answer.summary)"
            } catch {
                if error.code == .cancelled { throw error }
                last = error.message
            }
            onWait(last)
            do { try await Task.sleep(for: Self.probeInterval) } catch {
                throw WorkerError(.cancelled, "the wait for \(engine) was cancelled")
            }
        } while ContinuousClock.now < deadline
        throw WorkerError(
            .engineUnreachable,
            "the engine at \(engine) is not ready: \(last); start it, or raise the time to wait for it"
        )
    }

    /// How many workers the engine has, all data-parallel ranks together; `nil` where it does not tell.
    public func workerCount(_ engine: EngineAddress, timeout: Duration) async throws(WorkerError)
        -> Int?
    {
        let answer = try await send(
            .GET, "/get_world_size?include_dp=true", to: engine,
            timeout: min(timeout, Self.probeTimeout))
        guard answer.status == 200,
            let value = try? JSONValue.parse(answer.body, limits: Self.answerLimits),
            case .object(let object) = value, case .integer(let count)? = object["world_size"],
            (1...4096).contains(count)
        else { return nil }
        return count
    }

    /// Starts the reload on all workers of the engine and waits for its answer. `addresses` maps worker
    /// ids to the addresses of their sockets.
    public func update(
        _ engine: EngineAddress, addresses: [(DeviceID, String)], timeout: Duration
    ) async throws(WorkerError) {
        let map = addresses.map { ($0.0.description, JSONValue.string($0.1)) }
        let body = JSONValue.object(
            JSONObject([
                ("method", .string("update_weights_from_ipc")),
                ("args", .array([.object(JSONObject(map))])),
                ("timeout", .integer(max(1, Int(timeout.components.seconds)))),
            ]))
        let answer = try await send(
            .POST, engine.updatePath, to: engine, body: body.encoded(), timeout: timeout)
        guard (200..<300).contains(answer.status) else {
            throw WorkerError(
                .engineFailed,
                "the engine at \(engine) refused the update: POST \(engine.updatePath) answered "
                    + "\(answer.status)\(Self.advice(answer.status))", cause: answer.text)
        }
    }

    /// Empties the prefix cache, so that no answer is made from the old weights. An engine without
    /// that call (404) has no such cache to empty.
    public func resetPrefixCache(_ engine: EngineAddress, deadline: ContinuousClock.Instant)
        async throws(WorkerError)
    {
        repeat {
            let timeout = ContinuousClock.now.duration(to: deadline)
            let answer = try await send(.POST, "/reset_prefix_cache", to: engine, timeout: timeout)
            if answer.status == 404 { return }
            let isHeld = answer.status == 200 && answer.text.contains("false")
            if answer.status == 200, !isHeld { return }
            guard isHeld else {
                throw WorkerError(
                    .engineFailed,
                    "the engine at \(engine) has the new weights, but did not reset its prefix cache: "
                        + "POST /reset_prefix_cache answered \(answer.status)", cause: answer.text)
            }
            do { try await Task.sleep(for: Self.probeInterval) } catch {
                throw WorkerError(.cancelled, "the reset of \(engine)'s prefix cache was cancelled")
            }
        } while ContinuousClock.now < deadline
        throw WorkerError(
            .deadlineExceeded,
            "the engine at \(engine) has the new weights, but running requests held its prefix cache "
                + "until the deadline")
    }
}

// MARK: - Requests

extension EngineClient {
    private struct Answer {
        let status: Int
        let body: [UInt8]

        var text: String { String(decoding: body, as: UTF8.self) }
        var summary: String { text.isEmpty ? "\(status)" : "\(status): \(text.prefix(500))" }
    }

    private static func advice(_ status: Int) -> String {
        switch status {
        case 404:
            "; vLLM has this call only with VLLM_SERVER_DEV_MODE=1 in its environment"
        case 401, 403: "; the engine wants a key, which is not supported"
        default: ""
        }
    }

    private func send(
        _ method: HTTPMethod, _ path: String, to engine: EngineAddress, body: [UInt8]? = nil,
        timeout: Duration
    ) async throws(WorkerError) -> Answer {
        var request = HTTPClientRequest(url: engine.url(path))
        request.method = method
        // An engine's server may drop a connection after it has answered with an error, without saying
        // so; a call never meets what the one before has left.
        request.headers.add(name: "connection", value: "close")
        if engine.unixSocketPath != nil { request.headers.add(name: "host", value: "localhost") }
        if let body {
            request.headers.add(name: "content-type", value: "application/json")
            request.body = .bytes(ByteBuffer(bytes: body))
        }
        let milliseconds = max(1, WorkerLink.milliseconds(timeout))
        do {
            let response = try await client.execute(
                request, timeout: .milliseconds(Int64(milliseconds)))
            var bytes: [UInt8] = []
            for try await chunk in response.body {
                let room = Self.answerByteCountMax - bytes.count
                bytes.append(contentsOf: chunk.readableBytesView.prefix(room))
                if bytes.count >= Self.answerByteCountMax { break }
            }
            return Answer(status: Int(response.status.code), body: bytes)
        } catch {
            throw Self.failure(error, engine, method, path, milliseconds)
        }
    }

    private static func text(_ errorNumber: CInt) -> String {
        // SAFETY: the C library returns a constant string or nil.
        guard let text = unsafe ce_error_text(errorNumber) else { return "errno \(errorNumber)" }
        return unsafe String(cString: text)
    }

    private static func failure(
        _ error: any Error, _ engine: EngineAddress, _ method: HTTPMethod, _ path: String,
        _ milliseconds: Int
    ) -> WorkerError {
        if error is CancellationError || Task.isCancelled {
            return WorkerError(.cancelled, "\(method) \(path) to \(engine) was cancelled")
        }
        if let error = error as? IOError {
            return WorkerError(
                .engineUnreachable,
                "the engine at \(engine) cannot be reached for \(method) \(path): "
                    + text(error.errnoCode))
        }
        switch error as? HTTPClientError {
        case .cancelled?:
            return WorkerError(.cancelled, "\(method) \(path) to \(engine) was cancelled")
        case .deadlineExceeded?:
            return WorkerError(
                .deadlineExceeded,
                "the engine at \(engine) did not answer \(method) \(path) within "
                    + "\(Double(milliseconds) / 1000) s")
        case .remoteConnectionClosed?:
            return WorkerError(
                .engineFailed,
                "the engine at \(engine) closed the connection during \(method) \(path)")
        case .connectTimeout?, .some, .none:
            return WorkerError(
                .engineUnreachable,
                "the engine at \(engine) cannot be reached for \(method) \(path): \(error)")
        }
    }
}
