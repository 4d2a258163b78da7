public import CheckpointModel
import CheckpointNative
public import CheckpointPlan
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
        public let layout: PullLayout
        /// Those of the layout; files that nobody else writes to.
        public let locations: [SegmentLocation]
        /// Made from the layout's order.
        public let feed: PullFeed
        /// Of the sources' chunks.
        public let checksums: ChunkChecksums
        /// Tells when the places of a ring are free again.
        public let room: PullRoom?

        public init(
            _ layout: PullLayout, locations: [SegmentLocation], feed: PullFeed,
            checksums: ChunkChecksums, room: PullRoom? = nil
        ) {
            self.layout = layout
            self.locations = locations
            self.feed = feed
            self.checksums = checksums
            self.room = room
        }
    }

    let offer: PullOffer
    let target: Target
    let agents: SpareAgents
    let logger: Logger
    let mapped: [MappedShard]
    let start = ContinuousClock.now

    var schedule: PullSchedule
    var truth = ChecksumTruth()
    /// Every source that was ever known, by URL.
    var sources: [String: PulledSource] = [:]
    /// The sources that are read now, by their number in the schedule.
    var active: [Int: String] = [:]
    /// The agents, by the receiver's endpoint.
    var seats: [Seat] = []
    /// Since when there is no room for more.
    var roomWaitStart: ContinuousClock.Instant?
    /// When something has arrived last, or was not to be expected.
    var lastArrival = ContinuousClock.now
    private var outcome: Result<Void, PullError>?
    private let ended = AsyncStream.makeStream(of: Never.self)
    var tasks: [Task<Void, Never>] = []
    var followers: [Task<Void, Never>] = []
    /// Leases that are being begun.
    var beginningCount = 0

    /// Maps the memory of `target`, which the caller keeps until ``run()`` has returned; `shards` keep the
    /// mappings.
    public init(
        _ offer: PullOffer, into target: Target, agents: SpareAgents,
        shards: MappedShards = MappedShards(), logger: Logger
    ) throws(PullError) {
        var mapped: [MappedShard] = []
        for (location, byteCount) in zip(target.locations, target.layout.byteCounts) {
            mapped.append(try shards.shard(location, byteCount: byteCount))
        }
        self.offer = offer
        self.target = target
        self.agents = agents
        self.logger = logger
        self.mapped = mapped
        schedule = PullSchedule(
            order: target.layout.order, receiverEndpointCount: 1,
            openPlaceCount: target.layout.placeCount(released: 0))
    }

    /// Starts the agents and gives them the memory. Nothing is left when it throws, but what `memoryInUse`
    /// tells.
    public func prepare() async throws(PullError) {
        await startAgents()
        if case .failure(let error) = outcome {
            throw await abandon() ? error : Self.memoryInUse
        }
        schedule = PullSchedule(
            order: target.layout.order, receiverEndpointCount: seats.count,
            openPlaceCount: target.layout.placeCount(released: 0))
    }

    /// Ends a pull that was prepared and will not run; whether all agents are gone.
    public func abandon() async -> Bool {
        let kills = seats.compactMap(\.agent).map { agent in Task { await agent.kill() } }
        var areGone = true
        for kill in kills { areGone = await kill.value && areGone }
        return areGone
    }

    /// Reads everything after ``prepare()``; returns when nothing touches the memory any more, or throws
    /// `memoryInUse`. Cancelling the task ends it.
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
            for source in offer.request.sources { add(source, isNamed: true) }
            for source in offer.memory { add(source) }
            tasks.append(Task { await self.watch() })
            if offer.memory.isEmpty { tasks.append(Task { await self.learnTruth() }) }
            target.room?.follow { count in Task { await self.open(released: count) } }
            for await _ in ended.stream {}
            target.room?.follow(nil)
        }
        for task in tasks + followers { task.cancel() }
        for url in sources.keys { sources[url]?.cancelAsked() }
        async let leases: Void = endAllLeases()
        // Nothing may be written to the memory when this returns.
        let areGone =
            if case .success = outcome { await releaseAgents() } else { await abandon() }
        if !areGone { outcome = .failure(Self.memoryInUse) }
        await leases
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

    // MARK: The end

    /// Fails the pull when nothing arrives any more.
    private func watch() async {
        while !isOver {
            do { try await Task.sleep(for: .milliseconds(200)) } catch { return }
            // Who is slow then is the engine.
            if schedule.waitsForRoom { lastArrival = .now }
            let idle = lastArrival.duration(to: .now)
            if idle >= offer.request.stallTimeout { return end(.failure(stalled(idle))) }
            if !canBeChecked, !sources.values.contains(where: { $0.isNamed && $0.isWorthwhile }) {
                return end(.failure(stalled(idle)))
            }
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
        let missing = schedule.pendingByteCount
        return PullError(
            .sourceFailed,
            "nothing has arrived for \(Int(idle.inSeconds)) s, and of \(schedule.order.count) chunks "
                + "\(target.feed.arrivedChunkCount) are here (\(missing) bytes wait for a source): "
                + (reasons.isEmpty
                    ? "no source has failed, but none delivers"
                    : reasons.joined(separator: "; ")))
    }
}

extension Duration {
    var inSeconds: Double { Double(components.seconds) + Double(components.attoseconds) / 1e18 }
}
