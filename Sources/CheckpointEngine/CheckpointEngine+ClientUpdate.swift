public import CheckpointModel
import CheckpointWorker

/// What a client is told about an update whose engines it calls itself.
public struct OpenedUpdate: Codable, Hashable, Sendable {
    /// The update's id.
    public let update: String
    /// The ZeroMQ addresses for the workers, in the order of the request.
    public let sockets: [String]
}

extension CheckpointEngine {
    /// Starts an update of `workers`, ids as `DeviceID` writes them, whose engines the client calls itself,
    /// in `calls` calls; returns when the workers can connect. Workers on the CPU may have the same id,
    /// each in another engine. The client says how each call ended with ``reportCall(_:of:error:)``.
    /// With `alone` the other hosts of this daemon's group take no part.
    public func openUpdate(
        _ name: CheckpointName, workers: [String], calls: Int, timeoutSeconds: Double,
        alone: Bool = false
    ) async throws(EngineError) -> OpenedUpdate {
        try checkRunning()
        try Self.check(timeoutSeconds: timeoutSeconds)
        let clientCalls = ClientCalls(workers: try devices(workers), count: calls)
        let status = try start(
            name, try registered(name, for: []), engines: [], calls: clientCalls,
            seconds: timeoutSeconds, orders: EngineOrders(), alone: alone)
        if let addresses = await clientCalls.addresses() {
            return OpenedUpdate(update: status.id, sockets: addresses)
        }
        let ended = try await finishedUpdate(status.id)
        throw EngineError(
            ended.error.flatMap { EngineError.Code(rawValue: $0.code) } ?? .cancelled,
            ended.error?.message ?? "\(status.id) ended before its workers could connect",
            cause: ended.error?.cause)
    }

    /// Takes how the client's engine call `call` of an update ended; `error` is `nil` for success, else the
    /// update ends on all workers.
    public func reportCall(_ call: Int, of id: String, error: String?) throws(EngineError)
        -> UpdateStatus
    {
        let status = try update(id)
        guard let running = running[id] else {
            // What a call says after the end changes nothing; the status tells how that was.
            return status
        }
        guard let calls = running.clientCalls else {
            throw EngineError(
                .invalidArgument, "the engines of \(id) are called by the daemon, not by a client")
        }
        try calls.report(call, error: error)
        return status
    }

    private func devices(_ workers: [String]) throws(EngineError) -> [DeviceID] {
        guard (1...UpdateRequest.workerCountMax).contains(workers.count) else {
            throw EngineError(
                .invalidArgument,
                "the update is for \(workers.count) workers; 1 to "
                    + "\(UpdateRequest.workerCountMax) are possible")
        }
        return try workers.map { text throws(EngineError) in
            guard let device = DeviceID(text), device.isGPU == (gpuCount != nil) else {
                throw EngineError(
                    .invalidArgument,
                    gpuCount == nil
                        ? "\"\(text.prefix(80))\" is no worker on the CPU: this daemon updates "
                            + "engines on the CPU, whose workers are CPU-0, CPU-1, …"
                        : "\"\(text.prefix(80))\" is no GPU: this daemon updates engines on "
                            + "GPUs, whose workers are GPU-<uuid>")
            }
            return device
        }
    }
}
