import CheckpointEngine
import Logging
import ServiceLifecycle

/// The join itself, beside the server: pull, update, then nothing more.
struct JoinService: Service {
    let engine: CheckpointEngine
    let order: JoinOrder
    let logger: Logger

    /// Returns when the daemon stops; throws, which stops it, when the join fails.
    func run() async throws {
        try await cancelWhenGracefulShutdown {
            try await join()
        }
        try? await gracefulShutdown()
    }

    private func join() async throws {
        do {
            let pulled = try await engine.pull(
                order.name, remoteName: order.source.remoteName,
                sources: try await order.source.allAddresses(engine), token: order.source.token,
                stallTimeout: order.source.stallTimeout, keep: order.source.keep)
            try await engine.waitUntilReady(
                order.request.instances, timeoutSeconds: order.readySeconds
            ) { engine, answer in
                logger.debug(
                    "waiting for an engine",
                    metadata: ["engine": "\(engine)", "answer": "\(answer)"])
            }
            let started = try await engine.startUpdate(order.name, order.request)
            let ended = try await engine.finishedUpdate(started.id)
            if let failure = ended.error {
                throw CommandError(
                    "the update \(ended.id) failed in the stage \(ended.stage.rawValue): "
                        + failure.message, cause: failure.cause)
            }
            if pulled.kept { try await engine.finishedPull(order.name) }
            logger.notice(
                "Joined",
                metadata: [
                    "checkpoint": "\(pulled.name)", "bytes": "\(pulled.bytes)",
                    "update_seconds": "\(ended.seconds)", "kept": "\(pulled.kept)",
                ])
        } catch let error as EngineError where error.code == .cancelled {
            // The daemon was told to stop meanwhile.
            if !Task.isCancelled { throw error }
        }
    }
}
