import CheckpointModel

/// Workers of the known protocol: what they answer is empty, or the text of an error, and stands here
/// for the message that a worker of the own protocol would have sent.
extension UpdateSession {
    /// Buckets that may lie in a known worker's queue: it takes them one by one.
    private static let knownCreditCount = 2

    /// The worker has opened its memory and waits for tensors.
    mutating func greetedKnown(_ worker: Int, at now: ContinuousClock.Instant) -> [Action] {
        markKnown(worker)
        return received(
            .hello(
                WorkerHello(
                    version: hello.versions.max() ?? 1, worker: endpoints[worker].id.description,
                    pid: 0, software: "checkpoint_engine (known protocol)",
                    credits: Self.knownCreditCount)),
            from: worker, at: now)
    }

    /// A known worker's answer: nothing, or what went wrong.
    mutating func receivedKnown(
        _ text: String, from worker: Int, at now: ContinuousClock.Instant
    ) -> [Action] {
        if text.isEmpty {
            guard let message = positiveAnswer(of: worker) else {
                return malformed(worker, "an answer to nothing")
            }
            return received(message, from: worker, at: now)
        }
        markKnown(worker)
        let lines = text.split(separator: "\n")
        return received(
            .error(
                WorkerFailure(
                    stage: .bucket, message: String(lines.last ?? "an error without a text"),
                    traceback: text)),
            from: worker, at: now)
    }
}
