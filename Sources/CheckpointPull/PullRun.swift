public import CheckpointModel
import CheckpointNative
import CheckpointPlan
import CheckpointTransfer
public import Logging

/// One pull, from the first lease to the last chunk: an agent reads from all sources at once into this host's
/// memory, in the order of delivery, and every chunk is checked when it is there.
///
/// A source that fails is asked again until nothing has arrived for the request's time; its chunks go to the
/// others at once. What is read is one version: chunks are checked against the checksums of one source, and
/// another one may take its place only if it has the same for all that has arrived.
public actor PullRun {
    /// Where the bytes go, and who is told.
    public struct Target: Sendable {
        /// One for each shard of the offer; files that nobody else writes to.
        public let locations: [SegmentLocation]
        public let feed: PullFeed
        public let checksums: ChunkChecksums

        public init(locations: [SegmentLocation], feed: PullFeed, checksums: ChunkChecksums) {
            self.locations = locations
            self.feed = feed
            self.checksums = checksums
        }
    }

    let offer: PullOffer
    let target: Target
    let agents: SpareAgent
    let logger: Logger
    let mapped: [MappedShard]
    private let start = ContinuousClock.now

    var schedule: PullSchedule
    var truth = ChecksumTruth()
    /// Every source that was ever known, by URL.
    var sources: [String: PulledSource] = [:]
    /// The sources that are read now, by their number in the schedule.
    var active: [Int: String] = [:]
    var agent: TransferAgent?
    /// Where the agent has each shard's data section.
    var localAddresses: [UInt] = []
    /// What it has mapped for this pull.
    private var mappedAddresses: [UInt] = []
    private var isRestarting = false
    /// Whether the agent still reads from a source that is none any more.
    private var isSettling = false
    /// When something has arrived last, or was not to be expected.
    var lastArrival = ContinuousClock.now
    private var outcome: Result<Void, PullError>?
    private let ended = AsyncStream.makeStream(of: Never.self)
    private var tasks: [Task<Void, Never>] = []
    var followers: [Task<Void, Never>] = []
    /// Leases that are being begun.
    var beginningCount = 0

    /// Maps the memory of `target`, which the caller keeps until ``run()`` has returned.
    public init(
        _ offer: PullOffer, into target: Target, agents: SpareAgent, logger: Logger
    ) throws(PullError) {
        var mapped: [MappedShard] = []
        for (location, shard) in zip(target.locations, offer.catalog.shards) {
            mapped.append(try MappedShard(location, byteCount: shard.byteCount))
        }
        self.offer = offer
        self.target = target
        self.agents = agents
        self.logger = logger
        self.mapped = mapped
        schedule = PullSchedule(order: offer.order, receiverEndpointCount: 1)
    }

    /// Starts the agent and gives it the memory; nothing is left when it throws.
    public func prepare() async throws(PullError) {
        await startAgent()
        guard case .failure(let error) = outcome else { return }
        await agent?.kill()
        throw error
    }

    /// Ends a pull that was prepared and will not run.
    public func abandon() async { await agent?.kill() }

    /// Reads everything after ``prepare()``; returns when nothing touches the memory any more. Cancelling the
    /// task ends it.
    public func run() async throws(PullError) {
        lastArrival = .now
        await withTaskCancellationHandler {
            await work()
        } onCancel: {
            Task { await self.end(.failure(PullError(.cancelled, "the pull was cancelled"))) }
        }
        if case .failure(let error) = outcome {
            target.feed.fail(error)
            throw error
        }
    }

    /// Bytes that each source has sent.
    public var bytesBySource: [String: Int] { sources.mapValues(\.byteCount) }

    private func work() async {
        if schedule.isComplete { end(.success(())) }
        if outcome == nil {
            for source in offer.request.sources { add(source) }
            for source in offer.memory { add(source) }
            tasks.append(Task { await self.watch() })
            for await _ in ended.stream {}
        }
        for task in tasks + followers { task.cancel() }
        async let leases: Void = endAllLeases()
        // Nothing may be written to the memory when this returns.
        if case .success = outcome, await releaseAgent() {
            agent = nil
        } else if await agent?.kill() == false {
            outcome = .failure(
                PullError(.system, "the transfer agent cannot be killed; its memory is not safe"))
        }
        await leases
    }

    /// Takes the memory from the agent and keeps it for the next pull; `false` when it does not let go.
    private func releaseAgent() async -> Bool {
        guard let agent, await agent.waitForReads(timeout: .seconds(1)) else { return false }
        do throws(TransferError) {
            for address in mappedAddresses { try await agent.unmap(address) }
        } catch {
            return false
        }
        await agents.giveBack(agent)
        return true
    }

    func end(_ result: Result<Void, PullError>) {
        guard outcome == nil else { return }
        outcome = result
        ended.continuation.finish()
    }

    var isOver: Bool { outcome != nil }

    /// Ends the leases, those included that are just being begun, if their source answers soon.
    private func endAllLeases() async {
        let deadline = ContinuousClock.now + .seconds(2)
        await endLeases()
        while beginningCount > 0, ContinuousClock.now < deadline {
            // Also in a task that is cancelled.
            await Task { try? await Task.sleep(for: .milliseconds(10)) }.value
        }
    }

    private func endLeases() async {
        let client = offer.client
        await withTaskGroup(of: Void.self) { group in
            for source in sources.values {
                guard let lease = source.lease, !lease.id.isEmpty else { continue }
                // Also in a task that is cancelled: the next reader's turn begins at once.
                group.addTask {
                    await Task { await client.end(lease.id, at: source.address) }.value
                }
            }
        }
    }

    // MARK: The agent

    private func startAgent() async {
        do throws(TransferError) {
            let agent = try await agents.take()
            var addresses: [UInt] = []
            self.agent = agent
            mappedAddresses = []
            for location in target.locations {
                let mapping = TransferMapping(
                    path: location.path, inode: location.inode,
                    byteCount: location.fileByteCount, isWritable: true)
                let address = try await agent.map(mapping)
                mappedAddresses.append(address)
                addresses.append(address + UInt(location.dataOffset))
            }
            localAddresses = addresses
        } catch {
            let code: PullError.Code =
                switch error.code {
                case .missing: .agentMissing
                case .cancelled: .cancelled
                case .failed, .lost, .timedOut: .system
                }
            end(.failure(PullError(code, "the transfer agent: \(error.message)")))
        }
    }

    /// Ends an agent that may still write, and starts another one; reads go on after that.
    private func restartAgent(_ failed: TransferAgent) async {
        guard !isRestarting, !isOver, agent === failed else { return }
        isRestarting = true
        defer { isRestarting = false }
        guard await failed.kill() else {
            return end(
                .failure(PullError(.system, "the transfer agent hangs and cannot be killed")))
        }
        guard !isOver else { return }
        await startAgent()
        if isOver { await agent?.kill() }
    }

    /// Waits until the agent has ended what it reads, before others put the same chunks: what a source sends
    /// that is none any more would land on theirs.
    func settle() {
        guard !isSettling, let agent else { return }
        isSettling = true
        tasks.append(
            Task {
                if await !agent.waitForReads(timeout: Self.settleTimeout) {
                    await restartAgent(agent)
                }
                isSettling = false
                pump()
            })
    }

    private static let settleTimeout = Duration.seconds(2)

    // MARK: Batches

    var seconds: Double { start.duration(to: .now).inSeconds }

    /// Starts all batches that can be read now.
    func pump() {
        guard !isOver, !isRestarting, !isSettling, let agent, !agent.hasEnded else { return }
        while let batch = schedule.next(at: seconds) {
            guard let url = active[batch.source], let source = sources[url],
                let lease = source.lease
            else {
                schedule.remove(batch.source)
                continue
            }
            tasks.append(Task { await self.read(batch, lease, url, agent) })
        }
        if tasks.count > 256 { tasks.removeFirst(128) }
    }

    private func read(
        _ batch: PullBatch, _ lease: SourceLease, _ url: String, _ agent: TransferAgent
    ) async {
        let ranges = batch.chunks.map { transferRange($0, lease) }
        let chunks = batch.chunks.flatMap(Array.init)
        let isChecked = offer.memory.isEmpty
        // Asked for while the bytes arrive. Not a child task: cancelling it would blame its source.
        let checksums = Task {
            isChecked ? await self.expectedChecksums(chunks, beside: url) : nil
        }
        do throws(TransferError) {
            _ = try await agent.read(
                from: lease.state.session, ranges, timeout: Self.timeout(batch.byteCount))
        } catch {
            return await failed(batch, url, error, agent)
        }
        // What comes after is not the wire's time.
        let readEnd = seconds
        guard !isOver else { return }
        guard isChecked else {
            let found = await Self.checksums(of: chunks, offer.order.grid, mapped)
            return arrived(batch, url, chunks, found, wrong: [], readEnd)
        }
        guard let expected = await checksums.value else {
            schedule.fail(batch.id, at: seconds)
            return pump()
        }
        let found = await Self.checksums(of: chunks, offer.order.grid, mapped)
        guard !isOver, expected.generation == truth.generation else {
            // Another source decides by now.
            schedule.fail(batch.id, at: seconds)
            return pump()
        }
        let wrong = zip(chunks, zip(expected.values, found)).filter { $0.1.0 != $0.1.1 }.map(\.0)
        arrived(batch, url, chunks, found, wrong: Set(wrong), readEnd)
    }

    private func arrived(
        _ batch: PullBatch, _ url: String, _ chunks: [Int], _ values: [UInt32],
        wrong: Set<Int>, _ readEnd: Double
    ) {
        guard schedule.finish(batch.id, at: readEnd, wrong: wrong) else { return pump() }
        let right = chunks.filter { !wrong.contains($0) }
        for (chunk, value) in zip(chunks, values) where !wrong.contains(chunk) {
            target.checksums.note(chunk, value)
            truth.arrivedBlocks.insert(chunk / ChecksumTruth.blockCount)
        }
        if !right.isEmpty { lastArrival = .now }
        sources[url]?.byteCount += right.reduce(0) { $0 + offer.order.grid.byteCount(of: $1) }
        target.feed.insert(right)
        if schedule.isComplete { return end(.success(())) }
        if !wrong.isEmpty { delivered(wrongBytesFrom: url, wrong.count) }
        pump()
    }

    private func failed(
        _ batch: PullBatch, _ url: String, _ error: TransferError, _ agent: TransferAgent
    ) async {
        guard !isOver else { return }
        switch error.code {
        case .timedOut:
            // The transfer may still go on: nobody else may put these chunks before the agent is gone.
            logger.warning(
                "a source does not answer; its chunks go to others",
                metadata: ["source": "\(url)", "reason": "\(error.message)"])
            suspend(url, "\(url) did not deliver \(batch.byteCount) bytes in time")
            await restartAgent(agent)
        case .lost:
            schedule.fail(batch.id, at: seconds)
            await restartAgent(agent)
        case .failed, .missing:
            suspend(url, "reading from \(url) failed: \(error.message)")
        case .cancelled: schedule.fail(batch.id, at: seconds)
        }
        pump()
    }

    private func transferRange(_ chunks: Range<Int>, _ lease: SourceLease) -> TransferRange {
        let place = offer.order.grid.range(of: chunks)
        return TransferRange(
            local: localAddresses[place.shard] + UInt(place.range.offset),
            remote: lease.state.addresses[place.shard] + UInt(place.range.offset),
            byteCount: place.range.byteCount)
    }

    /// A batch is sized by its duration, so that even slow links keep well below.
    private static func timeout(_ byteCount: Int) -> Duration {
        .seconds(5) + .milliseconds(byteCount / 20_000)
    }

    private static func checksums(of chunks: [Int], _ grid: ChunkGrid, _ mapped: [MappedShard])
        async -> [UInt32]
    {
        await BlockingThread.run("ckpt-verify") {
            chunks.map { chunk in
                let place = grid.range(of: chunk)
                return mapped[place.shard].checksum(of: place.range)
            }
        }
    }

    // MARK: The end

    /// Fails the pull when nothing arrives any more.
    private func watch() async {
        while !isOver {
            do { try await Task.sleep(for: .milliseconds(200)) } catch { return }
            let idle = lastArrival.duration(to: .now)
            if idle >= offer.request.stallTimeout { return end(.failure(stalled(idle))) }
            if !sources.values.contains(where: \.isWorthwhile) {
                return end(.failure(stalled(idle)))
            }
            pump()
        }
    }

    private func stalled(_ idle: Duration) -> PullError {
        let reasons = sources.values.compactMap { source in
            source.reason ?? source.number.map { _ in "\(source.address) sends nothing" }
        }.sorted()
        let grid = offer.order.grid
        let missing = schedule.pendingByteCount
        return PullError(
            .sourceFailed,
            "nothing has arrived for \(Int(idle.inSeconds)) s, and of \(grid.count) chunks "
                + "\(target.feed.arrivedChunkCount) are here (\(missing) bytes wait for a source): "
                + (reasons.isEmpty
                    ? "no source has failed, but none delivers"
                    : reasons.joined(separator: "; ")))
    }
}

extension Duration {
    var inSeconds: Double { Double(components.seconds) + Double(components.attoseconds) / 1e18 }
}
