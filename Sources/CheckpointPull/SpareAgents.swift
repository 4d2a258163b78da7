public import CheckpointTransfer
public import Logging

/// The agents that pulls read with: killed when they fail, kept for the next pull when all went well, since a
/// start takes a good part of a short pull.
public actor SpareAgents {
    /// How long agents that nobody needs are kept.
    private static let keepTime = Duration.seconds(60)

    private let configuration: AgentConfiguration
    /// How many a pull needs.
    private var count: Int
    private let logger: Logger
    private var spares: [TransferAgent] = []
    private var starts: [Task<Result<TransferAgent, TransferError>, Never>] = []
    private var end: Task<Void, Never>?
    private var isStopped = false

    /// `count` are for one pull, and kept.
    public init(_ configuration: AgentConfiguration, count: Int = 1, logger: Logger) {
        precondition(count > 0, "somebody reads")
        self.configuration = configuration
        self.count = count
        self.logger = logger
    }

    /// Begins to start an agent, unless there is one: somebody will soon take it.
    public func prepare() {
        spares.removeAll(where: \.hasEnded)
        guard !isStopped else { return }
        beginMissing()
    }

    private func beginMissing() {
        while spares.count + starts.count < count { begin() }
    }

    /// Agents for one pull that have nothing mapped, at least one; the caller gives each back or kills it.
    /// With RDMA one drives all cards.
    func takeAll() async throws(TransferError) -> [TransferAgent] {
        prepare()
        var all = [try await take()]
        if all[0].protocolName == "rdma" {
            count = 1
            Task { await self.stopSpares() }
        }
        while all.count < count {
            // The first can do it alone.
            guard let other = try? await take() else { break }
            all.append(other)
        }
        return all
    }

    /// One agent that has nothing mapped; the caller gives it back or kills it.
    func take() async throws(TransferError) -> TransferAgent {
        end?.cancel()
        while let spare = spares.popLast() {
            if !spare.hasEnded { return spare }
        }
        if starts.isEmpty {
            guard !isStopped else { throw TransferError(.lost, "the daemon is stopping") }
            begin()
        }
        return try await starts.removeFirst().value.get()
    }

    private func begin() {
        starts.append(
            Task { [configuration, logger] in
                do throws(TransferError) {
                    return .success(try await TransferAgent.start(configuration, logger: logger))
                } catch {
                    return .failure(error)
                }
            })
    }

    /// Takes back an agent that has nothing mapped and reads nothing.
    func giveBack(_ agent: TransferAgent) async {
        spares.removeAll(where: \.hasEnded)
        guard !isStopped, spares.count < count, !agent.hasEnded else {
            return await agent.stop()
        }
        spares.append(agent)
        end?.cancel()
        end = Task {
            do { try await Task.sleep(for: Self.keepTime) } catch { return }
            await self.stopSpares()
        }
    }

    private func stopSpares() async {
        let (agents, begun) = (spares, starts)
        spares = []
        starts = []
        await withTaskGroup(of: Void.self) { group in
            for agent in agents { group.addTask { await agent.stop() } }
            for start in begun {
                group.addTask {
                    if case .success(let agent) = await start.value { await agent.stop() }
                }
            }
        }
    }

    /// Stops what is kept, for good.
    public func stop() async {
        isStopped = true
        end?.cancel()
        await stopSpares()
    }
}
