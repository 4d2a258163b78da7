public import CheckpointTransfer
public import Logging

/// The agents that pulls read with: one at a time each, killed when they fail, kept for the next pull when all
/// went well, since a start takes a good part of a short pull.
public actor SpareAgent {
    /// How long an agent that nobody needs is kept.
    private static let keepTime = Duration.seconds(60)

    private let configuration: AgentConfiguration
    private let logger: Logger
    private var spare: TransferAgent?
    private var start: Task<Result<TransferAgent, TransferError>, Never>?
    private var end: Task<Void, Never>?
    private var isStopped = false

    public init(_ configuration: AgentConfiguration, logger: Logger) {
        self.configuration = configuration
        self.logger = logger
    }

    /// Begins to start an agent, unless there is one: somebody will soon take it.
    public func prepare() {
        guard !isStopped, start == nil, spare?.hasEnded != false else { return }
        start = Task { [configuration, logger] in
            do throws(TransferError) {
                return .success(try await TransferAgent.start(configuration, logger: logger))
            } catch {
                return .failure(error)
            }
        }
    }

    /// An agent that has nothing mapped; the caller gives it back or kills it.
    public func take() async throws(TransferError) -> TransferAgent {
        end?.cancel()
        if let spare = spare.take(), !spare.hasEnded { return spare }
        if let start = start.take() { return try await start.value.get() }
        guard !isStopped else { throw TransferError(.lost, "the daemon is stopping") }
        return try await TransferAgent.start(configuration, logger: logger)
    }

    /// Takes back an agent that has nothing mapped and reads nothing.
    public func giveBack(_ agent: TransferAgent) async {
        guard !isStopped, spare?.hasEnded != false, !agent.hasEnded else {
            return await agent.stop()
        }
        spare = agent
        end?.cancel()
        end = Task {
            do { try await Task.sleep(for: Self.keepTime) } catch { return }
            await self.spare.take()?.stop()
        }
    }

    /// Stops what is kept, for good.
    public func stop() async {
        isStopped = true
        end?.cancel()
        if let start = start.take(), case .success(let agent) = await start.value {
            await agent.stop()
        }
        await spare.take()?.stop()
    }
}
