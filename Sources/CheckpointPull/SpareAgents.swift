public import CheckpointTransfer
import Glibc
public import Logging

/// An agent that pulls read with, and what it has mapped.
struct ReadingAgent: Sendable {
    let agent: TransferAgent
    var mapped: [TransferMapping: UInt] = [:]

    /// Whether one agent is enough, and cannot be left with memory that it may be told to write.
    var drivesCards: Bool { agent.protocolName == "rdma" }

    /// Unmaps files that are gone; `false` when it does not let go.
    func withoutRemoved() async -> ReadingAgent? {
        var kept = self
        // SAFETY: the bridged string lives for the call.
        for (mapping, address) in mapped where unsafe access(mapping.path, F_OK) != 0 {
            do throws(TransferError) { try await agent.unmap(address) } catch { return nil }
            kept.mapped[mapping] = nil
        }
        return kept
    }
}

/// The agents that pulls read with: killed when they fail, kept for the next pull when all went well, since
/// their starts, and the mapping of the memory, take a good part of a pull.
public actor SpareAgents {
    /// How long agents that nobody needs are kept: models change every few minutes.
    public static let keepTimeDefault = Duration.seconds(900)

    private let configuration: AgentConfiguration
    /// How many a pull needs.
    private var count: Int
    private let keepTime: Duration
    private let logger: Logger
    private var spares: [ReadingAgent] = []
    private var starts: [Task<Result<TransferAgent, TransferError>, Never>] = []
    /// Starts that somebody waits for, so that they are nobody else's.
    private var awaited: [Int: Task<Result<TransferAgent, TransferError>, Never>] = [:]
    private var awaitedCount = 0
    private var end: Task<Void, Never>?
    private var isStopped = false

    /// `count` are for one pull, and kept.
    public init(
        _ configuration: AgentConfiguration, count: Int = 1,
        keepTime: Duration = keepTimeDefault, logger: Logger
    ) {
        precondition(count > 0, "somebody reads")
        self.configuration = configuration
        self.count = count
        self.keepTime = keepTime
        self.logger = logger
    }

    /// Begins to start agents, unless there are some: somebody will soon take them.
    public func prepare() {
        spares.removeAll(where: \.agent.hasEnded)
        guard !isStopped else { return }
        while spares.count + starts.count < count { begin() }
        expectUse()
    }

    /// Agents for one pull, at least one; the caller gives each back or kills it. With RDMA one drives all cards.
    func takeAll() async throws(TransferError) -> [ReadingAgent] {
        prepare()
        var all = [try await take()]
        if all[0].drivesCards {
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

    /// One agent; the caller gives it back or kills it.
    func take() async throws(TransferError) -> ReadingAgent {
        expectUse()
        while let spare = spares.popLast() {
            if !spare.agent.hasEnded { return spare }
        }
        if starts.isEmpty {
            guard !isStopped else { throw TransferError(.lost, "the daemon is stopping") }
            begin()
        }
        awaitedCount += 1
        let (number, start) = (awaitedCount, starts.removeFirst())
        awaited[number] = start
        let result = await start.value
        awaited[number] = nil
        return ReadingAgent(agent: try result.get())
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

    /// Takes back an agent that reads nothing.
    func giveBack(_ reading: ReadingAgent) async {
        guard let reading = await reading.withoutRemoved() else {
            await reading.agent.kill()
            return
        }
        spares.removeAll(where: \.agent.hasEnded)
        guard !isStopped, spares.count < count, !reading.agent.hasEnded else {
            return await reading.agent.stop()
        }
        spares.append(reading)
        expectUse()
    }

    /// What is spare ends when nobody asks for a while, also where what it was started for has failed.
    private func expectUse() {
        end?.cancel()
        guard !isStopped else { return }
        end = Task { [keepTime] in
            do { try await Task.sleep(for: keepTime) } catch { return }
            await self.stopSpares()
        }
    }

    /// Ends the spare agents that have one of these files mapped, which are removed.
    public func drop(paths: [String]) async {
        let paths = Set(paths)
        let concerned = spares.filter { $0.mapped.keys.contains { paths.contains($0.path) } }
        spares.removeAll { spare in concerned.contains { $0.agent === spare.agent } }
        await Self.stop(concerned)
    }

    private func stopSpares() async {
        let (agents, begun) = (spares, starts)
        spares = []
        starts = []
        await Self.stop(agents)
        await Self.stop(begun)
    }

    private static func stop(_ starts: [Task<Result<TransferAgent, TransferError>, Never>]) async {
        for start in starts {
            if case .success(let agent) = await start.value { await agent.stop() }
        }
    }

    private static func stop(_ readings: [ReadingAgent]) async {
        await withTaskGroup(of: Void.self) { group in
            for reading in readings { group.addTask { await reading.agent.stop() } }
        }
    }

    /// Stops what is kept and what is being started, for good.
    public func stop() async {
        isStopped = true
        end?.cancel()
        let awaited = Array(awaited.values)
        await stopSpares()
        await Self.stop(awaited)
    }
}
