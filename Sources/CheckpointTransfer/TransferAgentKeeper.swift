public import CheckpointModel
public import Logging

/// Keeps an agent running, and files mapped in it: starts it when it is first needed, and another
/// one when it has ended.
public actor TransferAgentKeeper {
    /// An agent that runs, and where it has the files.
    public struct Current: Sendable {
        public let agent: TransferAgent
        /// By path.
        public let addresses: [ExactString: UInt]
        /// Why files are not mapped, by path; they are tried again with the next call.
        public let failures: [ExactString: TransferError]

        /// The name under which other agents reach this one.
        public var session: String { agent.session }
    }

    private typealias Outcome = Result<Void, TransferError>

    private struct Running {
        let agent: TransferAgent
        let start: ContinuousClock.Instant
        var addresses: [TransferMapping: UInt] = [:]
    }

    private static let stopTimeout = Duration.seconds(60)

    private let configuration: AgentConfiguration
    private let logger: Logger
    /// What is to be mapped, by path.
    private var wanted: [ExactString: TransferMapping] = [:]
    private var failures: [ExactString: TransferError] = [:]
    private var running: Running?
    /// Brings the agent to what is wanted; one at a time, for all who wait.
    private var attempt: (task: Task<Void, Never>, outcome: Promise<Outcome>)?
    private var lastFailure: TransferError?
    private var delay = RestartDelay()
    private var isStopped = false

    public init(_ configuration: AgentConfiguration, logger: Logger) {
        self.configuration = configuration
        self.logger = logger
    }

    /// Notes a file; the next ``current(timeout:)`` maps it, and so does each agent after that. It
    /// replaces another one of its path.
    public func add(_ mapping: TransferMapping) {
        wanted[mapping.key] = mapping
        failures[mapping.key] = nil
    }

    /// Forgets a file, and unmaps it. A failure is logged: the agent keeps the memory then.
    public func remove(
        path: String, timeout: Duration = TransferAgent.requestTimeout
    ) async {
        guard let mapping = wanted.removeValue(forKey: ExactString(path)) else { return }
        failures[ExactString(path)] = nil
        let deadline = ContinuousClock.now + timeout
        while let attempt {
            let rest = ContinuousClock.now.duration(to: deadline)
            if (try? await attempt.outcome.value(within: rest)) == nil { break }
        }
        // A path that was added again meanwhile is the next attempt's.
        guard wanted[ExactString(path)] != mapping else { return }
        await unmap(mapping, timeout: timeout)
    }

    /// An agent that runs and has mapped all files that it can. Starts one when there is none,
    /// waits for that of another caller, and starts none earlier than the last one's end allows.
    ///
    /// Throws the agent's failure, at once when a new start is further away than `timeout`.
    public func current(timeout: Duration = .seconds(30)) async throws(TransferError) -> Current {
        let deadline = ContinuousClock.now + timeout
        var isFailureNews = false
        while true {
            guard !isStopped else { throw Self.stopped }
            if attempt == nil, let current = settled(withFailures: isFailureNews) { return current }
            let rest = ContinuousClock.now.duration(to: deadline)
            if attempt == nil, !isRunning, let lastFailure,
                delay.remaining(at: .now) >= rest
            {
                throw lastFailure
            }
            let outcome: Outcome
            do throws(WaitEnd) {
                outcome = try await beginAttempt().value(within: rest)
            } catch {
                switch error {
                case .cancelled:
                    throw TransferError(.cancelled, "waiting for the transfer agent was cancelled")
                case .timedOut:
                    throw TransferError(.timedOut, "no transfer agent was ready after \(timeout)")
                }
            }
            try outcome.get()
            isFailureNews = true
        }
    }

    /// Stops the agent for good; returns when its process is gone.
    public func stop() async {
        isStopped = true
        if let attempt {
            attempt.task.cancel()
            // Also in a task that is cancelled: nothing is to be left.
            await Task { _ = try? await attempt.outcome.value(within: Self.stopTimeout) }.value
        }
        await running?.agent.stop()
        running = nil
    }
}

// MARK: - Attempts

extension TransferAgentKeeper {
    private static let stopped = TransferError(.lost, "the transfer agent was stopped for good")

    private var isRunning: Bool { running.map { !$0.agent.hasEnded } ?? false }

    /// What is there, when it is what is wanted.
    private func settled(withFailures: Bool) -> Current? {
        guard let running, isRunning, withFailures || failures.isEmpty else { return nil }
        var addresses: [ExactString: UInt] = [:]
        for mapping in wanted.values {
            if let address = running.addresses[mapping] {
                addresses[mapping.key] = address
            } else if failures[mapping.key] == nil {
                return nil
            }
        }
        return Current(agent: running.agent, addresses: addresses, failures: failures)
    }

    /// The attempt that goes on, or a new one.
    private func beginAttempt() -> Promise<Outcome> {
        if let attempt { return attempt.outcome }
        let outcome = Promise<Outcome>()
        let task = Task {
            let result: Outcome
            do throws(TransferError) {
                try await prepare()
                result = .success(())
            } catch {
                lastFailure = error
                result = .failure(error)
            }
            attempt = nil
            outcome.fulfil(result)
        }
        attempt = (task, outcome)
        return outcome
    }

    private func prepare() async throws(TransferError) {
        if let running, let end = running.agent.end {
            noteEnd(end, lifetime: running.start.duration(to: end.instant))
        }
        if running == nil { try await start() }
        guard let addresses = running?.addresses else { throw Self.stopped }
        for mapping in addresses.keys where wanted[mapping.key] != mapping {
            await unmap(mapping, timeout: TransferAgent.requestTimeout)
        }
        failures = [:]
        for mapping in wanted.values where addresses[mapping] == nil {
            guard let agent = running?.agent else { throw Self.stopped }
            do throws(TransferError) {
                running?.addresses[mapping] = try await agent.map(mapping)
            } catch {
                if agent.hasEnded || error.code == .cancelled { throw error }
                failures[mapping.key] = error
            }
        }
    }

    private func start() async throws(TransferError) {
        try? await Task.sleep(for: delay.remaining(at: .now))
        if isStopped { throw Self.stopped }
        let agent: TransferAgent
        do throws(TransferError) {
            agent = try await TransferAgent.start(configuration, logger: logger)
        } catch {
            delay.noteEnd(at: .now, lifetime: .zero)
            throw error
        }
        running = Running(agent: agent, start: .now)
        logger.info(
            "The transfer agent is ready.",
            metadata: [
                "session": "\(agent.session)", "protocol": "\(agent.protocolName)",
                "process": "\(agent.processID)",
            ])
    }

    private func noteEnd(_ end: AgentEnd, lifetime: Duration) {
        running = nil
        delay.noteEnd(at: end.instant, lifetime: lifetime)
        lastFailure = end.error
        logger.warning(
            "The transfer agent has ended; another one is started.",
            metadata: ["reason": "\(end.error.message)"])
    }

    private func unmap(_ mapping: TransferMapping, timeout: Duration) async {
        guard let agent = running?.agent,
            let address = running?.addresses.removeValue(forKey: mapping)
        else { return }
        do throws(TransferError) {
            try await agent.unmap(address, timeout: timeout)
        } catch {
            if agent.hasEnded { return }
            logger.warning(
                "The transfer agent keeps memory that is not needed any more.",
                metadata: ["path": "\(mapping.path)", "reason": "\(error.message)"])
        }
    }
}

extension TransferMapping {
    fileprivate var key: ExactString { ExactString(path) }
}
