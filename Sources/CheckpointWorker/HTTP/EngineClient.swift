import AsyncHTTPClient
import CNative
import CheckpointJSON
public import CheckpointModel
import NIOCore
import NIOHTTP1

/// The HTTP calls that an update makes to the engines: ready?, reload, reset the cache.
///
/// Every call has a deadline. What is called, and what answers mean, is the matter of each kind's
/// ``EngineProtocol``.
public struct EngineClient: Sendable {
    static let probeTimeout = Duration.seconds(5)
    static let probeInterval = Duration.milliseconds(500)
    private let client: HTTPClient
    private let token: String?

    /// `token` is sent to every engine as a bearer token.
    public init(token: String? = nil) {
        self.token = token
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

    /// Waits until the engine can be updated, or throws what it said last; at once where waiting does not
    /// help, because the engine wants a key or has no such path.
    public func waitUntilReady(
        _ engine: EngineAddress, deadline: ContinuousClock.Instant,
        onWait: @Sendable (_ lastAnswer: String) -> Void
    ) async throws(WorkerError) {
        let calls = engine.kind.calls
        let path = calls.readinessPath
        var last = "it was not asked yet"
        var isAsked = false
        repeat {
            let timeout = min(Self.probeTimeout, ContinuousClock.now.duration(to: deadline))
            do throws(WorkerError) {
                let answer = try await send(.get(path), to: engine, timeout: timeout)
                if calls.isReady(answer.status) { return }
                try Self.checkHopeful(answer, engine)
                last = "GET \(path) answered \(answer.summary)"
            } catch {
                if error.code == .cancelled || error.code == .engineRefused { throw error }
                // The last one is cut short: that it was not answered says less than the ones before.
                let isCutShort = error.code == .deadlineExceeded && timeout < Self.probeTimeout
                if !isAsked || !isCutShort { last = error.message }
            }
            isAsked = true
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

    /// Throws for answers that waiting does not change.
    private static func checkHopeful(_ answer: EngineAnswer, _ engine: EngineAddress)
        throws(WorkerError)
    {
        let calls = engine.kind.calls
        let call = EngineCall.get(calls.readinessPath)
        let advice: String
        switch answer.status {
        case 401, 403: advice = calls.advice(answer.status, call)
        case 404:
            advice =
                "; is it of the kind \(engine.kind.rawValue), and is \(engine.base) all of its URL? What "
                + "stands there before \(calls.updatePath) is a part of all calls"
        default: return
        }
        throw WorkerError(
            .engineRefused,
            "the engine at \(engine) cannot be asked whether it is ready: \(call.name) answered "
                + "\(answer.status)\(advice)", cause: answer.text)
    }

    /// How many workers the engine has, all data-parallel ranks together; `nil` where it does not tell.
    public func workerCount(_ engine: EngineAddress, timeout: Duration) async throws(WorkerError)
        -> Int?
    {
        let calls = engine.kind.calls
        let answer = try await send(
            .get(calls.workerCountPath), to: engine, timeout: min(timeout, Self.probeTimeout))
        return try calls.workerCount(answer, of: engine)
    }

    /// Starts the reload on all workers of the engine and waits for its answer. `addresses` maps worker
    /// ids to the addresses of their sockets.
    public func update(
        _ engine: EngineAddress, addresses: [(DeviceID, String)], timeout: Duration,
        orders: EngineOrders = EngineOrders()
    ) async throws(WorkerError) {
        let calls = engine.kind.calls
        let call = calls.updateCall(addresses: addresses, timeout: timeout, orders)
        let answer = try await send(call, to: engine, timeout: timeout)
        guard let why = calls.updateFailure(answer) else { return }
        throw WorkerError(
            .engineFailed,
            "the engine at \(engine) refused the update: \(call.name) \(why)"
                + calls.advice(answer.status, call), cause: answer.text)
    }
}

// MARK: - Requests

extension EngineClient {
    func send(_ call: EngineCall, to engine: EngineAddress, timeout: Duration)
        async throws(WorkerError) -> EngineAnswer
    {
        var request = HTTPClientRequest(url: engine.url(call.path))
        request.method = call.method
        // An engine's server may drop a connection after it has answered with an error, without saying
        // so; a call never meets what the one before has left.
        request.headers.add(name: "connection", value: "close")
        if engine.unixSocketPath != nil { request.headers.add(name: "host", value: "localhost") }
        if let token { request.headers.add(name: "authorization", value: "Bearer \(token)") }
        if let body = call.body {
            request.headers.add(name: "content-type", value: "application/json")
            request.body = .bytes(ByteBuffer(bytes: body.encoded()))
        }
        let milliseconds = max(1, WorkerLink.milliseconds(timeout))
        do {
            let answer = try await HTTPExchange.perform(
                request, with: client, timeout: .milliseconds(milliseconds),
                byteCountMax: EngineAnswer.byteCountMax)
            return EngineAnswer(status: answer.status, body: answer.bytes)
        } catch {
            throw Self.failure(error, engine, call.method, call.path, milliseconds)
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
