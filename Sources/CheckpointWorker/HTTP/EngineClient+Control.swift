import CheckpointJSON
public import CheckpointModel

/// What is done to an engine around the delivery of its weights.
extension EngineClient {
    /// Holds the engine's requests, as `orders.pause` tells. Returns when it stands still.
    public func pause(
        _ engine: EngineAddress, _ mode: PauseMode, _ orders: EngineOrders,
        deadline: ContinuousClock.Instant
    ) async throws(WorkerError) {
        let call = try engine.kind.calls.pauseCall(mode, orders)
        _ = try await succeed(call, on: engine, "did not pause", deadline: deadline)
    }

    /// Lets the engine's requests go on.
    public func resume(_ engine: EngineAddress, deadline: ContinuousClock.Instant)
        async throws(WorkerError)
    {
        _ = try await succeed(
            engine.kind.calls.resumeCall, on: engine, "did not resume", deadline: deadline)
    }

    /// Takes the memory of the weights back where the engine has given it up. Returns whether it slept;
    /// an engine that does not tell counts as one that slept.
    public func wakeWeights(_ engine: EngineAddress, deadline: ContinuousClock.Instant)
        async throws(WorkerError) -> Bool
    {
        let calls = engine.kind.calls
        if let sleepCall = calls.sleepCall {
            let answer = try await succeed(
                sleepCall, on: engine, "does not tell whether it sleeps", deadline: deadline)
            guard case .bool(let isSleeping)? = answer.object?["is_sleeping"] else {
                throw WorkerError(
                    .engineFailed,
                    "the engine at \(engine) does not tell whether it sleeps: \(sleepCall.name) "
                        + "answered without is_sleeping", cause: answer.text)
            }
            if !isSleeping { return false }
        }
        _ = try await succeed(
            calls.wakeCall(.weights), on: engine, "did not wake up its weights", deadline: deadline)
        return true
    }

    /// Takes the memory of the cache back, after ``wakeWeights(_:deadline:)`` and the update.
    public func wakeCache(_ engine: EngineAddress, deadline: ContinuousClock.Instant)
        async throws(WorkerError)
    {
        _ = try await succeed(
            engine.kind.calls.wakeCall(.cache), on: engine, "did not wake up its cache",
            deadline: deadline)
    }

    /// Tells the engine how its weights are called, where the update's call has not.
    public func setVersion(
        _ version: String, of engine: EngineAddress, deadline: ContinuousClock.Instant
    ) async throws(WorkerError) {
        guard let call = engine.kind.calls.versionCall(version) else { return }
        _ = try await succeed(
            call, on: engine, "has the new weights, but did not take their version",
            deadline: deadline)
    }

    /// Empties the prefix cache, so that no answer is made from the old weights. An engine without
    /// that call (404) has no such cache to empty.
    public func resetPrefixCache(
        _ engine: EngineAddress, _ orders: EngineOrders = EngineOrders(),
        deadline: ContinuousClock.Instant
    ) async throws(WorkerError) {
        guard let call = engine.kind.calls.resetCall(orders) else { return }
        repeat {
            let answer = try await send(
                call, to: engine, timeout: ContinuousClock.now.duration(to: deadline))
            if answer.status == 404 { return }
            let isHeld = answer.object?["success"] == .bool(false)
            if answer.status == 200, !isHeld { return }
            guard answer.status == 200 else {
                throw WorkerError(
                    .engineFailed,
                    "the engine at \(engine) has the new weights, but did not reset its prefix cache: "
                        + "\(call.name) answered \(answer.status)", cause: answer.text)
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

    /// Carries out `call`, which has to be answered with success. `what` says what went wrong else.
    private func succeed(
        _ call: EngineCall, on engine: EngineAddress, _ what: String,
        deadline: ContinuousClock.Instant
    ) async throws(WorkerError) -> EngineAnswer {
        let timeout = ContinuousClock.now.duration(to: deadline)
        let answer = try await send(call, to: engine, timeout: timeout)
        guard answer.isSuccess else {
            throw WorkerError(
                .engineFailed,
                "the engine at \(engine) \(what): \(call.name) answered \(answer.status)"
                    + engine.kind.calls.advice(answer.status, call), cause: answer.text)
        }
        return answer
    }

    /// The call that ends a pause, for people: `POST /resume`.
    public static func resumeCall(of engine: EngineAddress) -> String {
        engine.kind.calls.resumeCall.name
    }

    /// Throws `invalidArgument` for a pause that engines of `kind` do not have.
    public static func check(_ mode: PauseMode, for kind: EngineKind) throws(WorkerError) {
        _ = try kind.calls.pauseCall(mode, EngineOrders(pause: mode))
    }
}
