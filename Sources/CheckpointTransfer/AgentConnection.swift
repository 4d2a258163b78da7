import CheckpointJSON
import Logging

/// Why and when the process of an agent was found to be gone.
struct AgentEnd: Sendable {
    let error: TransferError
    let instant: ContinuousClock.Instant
}

/// The requests to one agent and their answers, from its start to its end.
actor AgentConnection {
    private struct Pending {
        let request: AgentRequest
        let answer: Promise<Result<AgentMessage.Answer, TransferError>>
        /// Nobody waits for the answer any more.
        var isAbandoned = false
    }

    /// How long a process that was killed may stay: the kernel gives back what it had registered.
    private static let goneTimeout = Duration.seconds(30)

    private let configuration: AgentConfiguration
    private let process: AgentProcess
    private let ready = Promise<Result<AgentMessage.Ready, TransferError>>()
    /// Fulfilled when the process is gone.
    nonisolated let ended = Promise<AgentEnd>()
    private var splitter = LineSplitter(byteCountMax: AgentMessage.byteCountMax)
    private var pending: [Int: Pending] = [:]
    private var nextID = 1
    /// Why the agent was killed or stopped, when we did it.
    private var reason: TransferError?

    init(_ configuration: AgentConfiguration, logger: Logger) {
        self.configuration = configuration
        self.process = AgentProcess(configuration, logger: logger)
    }

    nonisolated var processID: Int32? { process.processID }

    /// Starts the process, and waits until it has said that it is ready. Nothing is left of one
    /// that does not.
    func start() async throws(TransferError) -> AgentMessage.Ready {
        Task {
            let end = await process.run { bytes in await self.receive(bytes) }
            finish(end)
        }
        let result: Result<AgentMessage.Ready, TransferError>
        do throws(WaitEnd) {
            result = try await ready.value(within: configuration.startTimeout)
        } catch {
            let limit = configuration.startTimeout
            let failure =
                switch error {
                case .timedOut:
                    TransferError(
                        .timedOut,
                        "the transfer agent (\(program)) was not ready after \(limit)"
                            + lastErrors)
                case .cancelled:
                    TransferError(.cancelled, "the start of the transfer agent was cancelled")
                }
            await kill(failure)
            throw failure
        }
        return try result.get()
    }

    /// Sends a request and waits for its answer.
    func ask(_ request: AgentRequest, timeout: Duration) async throws(TransferError)
        -> AgentMessage.Answer
    {
        if let error = ended.valueNow?.error ?? reason { throw error }
        if Task.isCancelled { throw TransferError(.cancelled, "\(request.title) was cancelled") }
        let id = nextID
        nextID += 1
        let answer = Promise<Result<AgentMessage.Answer, TransferError>>()
        pending[id] = Pending(request: request, answer: answer)
        process.send(request.line(id: id))
        do throws(WaitEnd) {
            _ = try await answer.value(within: timeout)
        } catch {
            // The answer may have come between the end of the wait and now.
            if answer.valueNow == nil {
                pending[id]?.isAbandoned = true
                switch error {
                case .cancelled: throw TransferError(.cancelled, "\(request.title) was cancelled")
                case .timedOut:
                    throw TransferError(
                        .timedOut, "\(request.title) took longer than \(timeout)" + lastErrors)
                }
            }
        }
        guard let result = answer.valueNow else {
            preconditionFailure("a promise keeps the value that ended a wait")
        }
        return try result.get()
    }

    /// Waits until every read so far is answered, those included for which nobody waits any more;
    /// `false` when that takes longer. The end of the agent answers all.
    func waitForReads(timeout: Duration) async -> Bool {
        let deadline = ContinuousClock.now + timeout
        for read in pending.values where read.request.operation == .read {
            let rest = ContinuousClock.now.duration(to: deadline)
            guard (try? await read.answer.value(within: rest)) != nil else { return false }
        }
        return true
    }

    /// Ends the process in good order, or kills it when it does not end; returns when it is gone.
    func stop() async {
        if reason == nil { reason = TransferError(.lost, "the transfer agent was stopped") }
        process.stop()
        _ = await isGone()
    }

    /// Kills the process; whether it is gone.
    @discardableResult
    func kill(_ failure: TransferError? = nil) async -> Bool {
        if reason == nil {
            reason = failure ?? TransferError(.lost, "the transfer agent was killed")
        }
        process.kill()
        return await isGone()
    }

    /// Kills the process without waiting.
    nonisolated func abandon() { process.kill() }

    /// Also in a task that is cancelled: whoever cleans up has to know.
    private func isGone() async -> Bool {
        await Task { [ended] in
            (try? await ended.value(within: Self.goneTimeout)) != nil
        }.value
    }
}

// MARK: - What comes from the agent

extension AgentConnection {
    private func receive(_ bytes: [UInt8]) {
        for line in splitter.lines(in: bytes) where reason == nil {
            do throws(JSONError) {
                try take(AgentMessage.parse(line))
            } catch {
                let text = JSONError.quoted(String(decoding: line.prefix(200), as: UTF8.self))
                refuse("it wrote \(text): \(error)")
            }
        }
    }

    private func take(_ message: AgentMessage) {
        switch (message, ready.valueNow) {
        case (.ready(let ready), nil): self.ready.fulfil(.success(ready))
        case (.failed(let text), nil):
            // It ends by itself; its own words say more than its end.
            reason = TransferError(.missing, "the transfer agent (\(program)) cannot work: \(text)")
            process.stop()
        case (.answer(let id, let answer), .some): take(answer, id: id)
        case (.refusal(let id?, let text), .some):
            guard let pending = pending.removeValue(forKey: id) else {
                refuse("it answered a request \(id) that nobody made")
                return
            }
            pending.answer.fulfil(
                .failure(TransferError(.failed, "\(pending.request.title): \(text)")))
        case (.refusal(nil, let text), .some): refuse("it did not understand a request: \(text)")
        case (.ready, .some), (.failed, .some): refuse("it began twice")
        case (.answer, nil), (.refusal, nil): refuse("it answered before it was ready")
        }
    }

    private func take(_ answer: AgentMessage.Answer, id: Int) {
        guard let asked = pending[id] else {
            refuse("it answered a request \(id) that nobody made")
            return
        }
        let operation = asked.request.operation
        guard (answer.address != nil) == (operation == .map),
            (answer.seconds != nil) == (operation == .read)
        else {
            // The request is open until the process is gone: it may still do what it was asked for.
            refuse("its answer does not fit: \(asked.request.title)")
            return
        }
        pending[id] = nil
        asked.answer.fulfil(.success(answer))
        if asked.isAbandoned, let address = answer.address { giveBack(address) }
    }

    /// Unmaps what was mapped too late for the one who asked for it.
    private func giveBack(_ address: UInt) {
        guard let request = try? AgentRequest.unmap(address) else { return }
        let id = nextID
        nextID += 1
        pending[id] = Pending(request: request, answer: Promise(), isAbandoned: true)
        process.send(request.line(id: id))
    }

    /// Kills an agent that breaks the protocol.
    private func refuse(_ what: String) {
        let code: TransferError.Code = ready.valueNow == nil ? .failed : .lost
        if reason == nil {
            reason = TransferError(code, "the transfer agent (\(program)) was killed: \(what)")
        }
        process.kill()
    }
}

// MARK: - Its end

extension AgentConnection {
    private static let advice =
        "install Python 3 and pip install 'checkpoint-engine-native[p2p]'"

    private func finish(_ end: AgentProcess.End) {
        let error = reason ?? self.error(for: end)
        ready.fulfil(.failure(error))
        for request in pending.values { request.answer.fulfil(.failure(error)) }
        pending = [:]
        ended.fulfil(AgentEnd(error: error, instant: .now))
    }

    private func error(for end: AgentProcess.End) -> TransferError {
        // One that was ready is lost; one that never was lacks something.
        let code: TransferError.Code = ready.valueNow == nil ? .missing : .lost
        let advice = code == .missing ? "; \(Self.advice)" : ""
        let what =
            switch end {
            case .missing(let text), .notStarted(let text): "cannot be started: \(text)"
            case .exited(let status): "ended with status \(status)"
            case .killed(let signal): "was ended by signal \(signal)"
            }
        return TransferError(
            code, "the transfer agent (\(program)) \(what)\(advice)\(lastErrors)")
    }

    private var program: String {
        ([configuration.executable] + configuration.arguments).joined(separator: " ")
    }

    /// What the agent wrote last, for the end of a message.
    private var lastErrors: String {
        let lines = process.lastErrors
        return lines.isEmpty ? "" : "; it wrote: " + lines.joined(separator: "\n")
    }
}
