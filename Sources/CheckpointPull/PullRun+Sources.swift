import CheckpointPlan
import Logging

/// How a pull finds, follows and gives up its sources.
extension PullRun {
    private static let calmInterval = Duration.seconds(1)
    /// A source that still receives, or is busy with another reader, changes fast.
    private static let eagerInterval = Duration.milliseconds(100)
    private static let retryInterval = Duration.milliseconds(500)
    /// Wrong bytes may come from a version that is being replaced; more often they mean a defect.
    private static let wrongCountMax = 3

    /// Begins to follow a source, unless it is known.
    func add(_ address: SourceAddress) {
        guard sources[address.url] == nil, sources.count < PullRequest.sourceCountMax,
            address.url != offer.request.reader
        else { return }
        sources[address.url] = PulledSource(address: address)
        followers.append(Task { await self.follow(address) })
    }

    private func follow(_ address: SourceAddress) async {
        while !isOver, !Task.isCancelled, sources[address.url]?.isWorthwhile == true {
            let interval = waitsForRoomLong ? letGo(address) : await ask(address)
            pump()
            try? await Task.sleep(for: interval)
        }
    }

    /// Ends the lease of a source that cannot be read on for now: it is others' turn. There is a new one when
    /// there is room.
    private func letGo(_ address: SourceAddress) -> Duration {
        let url = address.url
        guard let lease = sources[url]?.lease, !lease.id.isEmpty else { return Self.eagerInterval }
        stopReading(url)
        endLease(lease, of: address)
        return Self.eagerInterval
    }

    /// Ends a lease; what it said counts no more.
    private func endLease(_ lease: SourceLease, of address: SourceAddress) {
        sources[address.url]?.lease = nil
        if truth.source == address.url { truth.source = nil }
        let client = offer.client
        followers.append(Task { await client.end(lease.id, at: address) })
    }

    /// Begins or renews the lease; returns how long to wait until the next time.
    private func ask(_ address: SourceAddress) async -> Duration {
        let url = address.url
        do throws(SourceClient.Refusal) {
            if let lease = sources[url]?.lease {
                do throws(SourceClient.Refusal) {
                    let state = try await offer.client.renew(lease.id, at: address)
                    return note(state, of: url)
                } catch .refused(let why) {
                    // It may have ended while this process stood still: a new one tells.
                    suspend(url, why)
                    sources[url]?.notBefore = nil
                    return .zero
                }
            }
            if let notBefore = sources[url]?.notBefore, notBefore > .now {
                return Self.eagerInterval
            }
            // Also in a task that is cancelled: who knows of no lease cannot end it.
            let (client, request) = (offer.client, offer.request)
            // What passes through a ring nobody can read from here.
            let reader = target.room == nil ? request.reader : nil
            beginningCount += 1
            defer { beginningCount -= 1 }
            let lease = try await Task { () -> Result<SourceLease, SourceClient.Refusal> in
                do throws(SourceClient.Refusal) {
                    return .success(
                        try await client.begin(
                            request.checkpoint, at: address, reader: reader))
                } catch {
                    return .failure(error)
                }
            }.value.get()
            guard !isOver else {
                await Task { await client.end(lease.id, at: address) }.value
                return .zero
            }
            return try begun(lease, url)
        } catch {
            switch error {
            case .unreachable(let why): suspend(url, why)
            case .refused(let why): giveUp(url, why)
            }
            return Self.retryInterval
        }
    }

    private func begun(_ lease: SourceLease, _ url: String) throws(SourceClient.Refusal)
        -> Duration
    {
        sources[url]?.lease = lease
        guard lease.digest == offer.digest,
            lease.shardByteCounts == offer.order.grid.shardByteCounts,
            lease.chunkByteCount == offer.order.grid.chunkByteCount
        else {
            throw .refused("\(url) has other tensors under the name \(offer.request.checkpoint)")
        }
        if let known = sources[url]?.incarnation, known != lease.incarnation {
            throw .refused(
                "\(url) has replaced \(offer.request.checkpoint) while it was read")
        }
        sources[url]?.incarnation = lease.incarnation
        return note(lease.state, of: url)
    }

    /// Takes what the source says of itself now.
    private func note(_ state: LeaseState, of url: String) -> Duration {
        guard let lease = sources[url]?.lease else { return Self.retryInterval }
        guard state.names(lease.shardByteCounts.count) else {
            giveUp(url, "\(url) names other shards than those of its lease")
            return Self.retryInterval
        }
        // An agent that has come or gone there.
        if state.endpoints.count != lease.state.endpoints.count { stopReading(url) }
        sources[url]?.lease = SourceLease(
            id: lease.id, state: state, incarnation: lease.incarnation, digest: lease.digest,
            chunkByteCount: lease.chunkByteCount, shardByteCounts: lease.shardByteCounts)
        for reader in state.readers {
            guard
                let address = SourceAddress(
                    url: reader, token: sources[url]?.address.token)
            else { continue }
            add(address)
        }
        // One that is read decides, not one whose turn it is not: that may have another version.
        if truth.source == nil, state.isActive, state.arrived == nil { truth.adopt(url) }
        guard state.isActive else {
            stopReading(url)
            // Somebody else reads there: it is no fault of anyone that nothing comes.
            lastArrival = .now
            return Self.eagerInterval
        }
        let number = sources[url]?.number ?? startReading(url, state)
        guard let arrived = state.arrived else {
            schedule.complete(number)
            return Self.calmInterval
        }
        let (order, layout) = (offer.order, target.layout)
        schedule.extend(
            number,
            with: arrived.lazy.flatMap { $0.clamped(to: 0..<order.count) }
                .flatMap { layout.chunks(ofSource: order.chunks[$0]) })
        return Self.eagerInterval
    }

    private func startReading(_ url: String, _ state: LeaseState) -> Int {
        let number = schedule.addSource(
            endpointCount: state.endpoints.count, holdsAll: state.arrived == nil)
        sources[url]?.number = number
        active[number] = url
        logger.info("reading from a source", metadata: ["source": "\(url)"])
        return number
    }

    /// Lets what is under way end, and starts no more: it is another reader's turn.
    private func stopReading(_ url: String) {
        guard let number = sources[url]?.number else { return }
        schedule.retire(number)
        drain(number)
        active[number] = nil
        sources[url]?.number = nil
    }

    /// Reads from the source no more for a while.
    func suspend(_ url: String, _ why: String) {
        stopReading(url)
        // Why it was given up says more than how what was under way has ended.
        if sources[url]?.isWorthwhile == true { sources[url]?.reason = why }
        sources[url]?.notBefore = .now + Self.calmInterval
        if sources[url]?.lease?.id.isEmpty == true {
            // Nobody can be asked whether it is still what it was.
            sources[url]?.isWorthwhile = false
        } else if let lease = sources[url]?.lease, let address = sources[url]?.address {
            endLease(lease, of: address)
        }
        if truth.source == url { truth.source = nil }
    }

    /// Reads from the source never again.
    func giveUp(_ url: String, _ why: String) {
        suspend(url, why)
        sources[url]?.isWorthwhile = false
        logger.warning("a source is given up", metadata: ["reason": "\(why)"])
    }

    /// A source has sent bytes that are not those of the version that is read.
    func delivered(wrongBytesFrom url: String, _ count: Int) {
        // One doubt at a time: what was under way meanwhile is wrong for the same reason.
        guard let source = sources[url], source.lease != nil, !source.isDoubted else { return }
        sources[url]?.wrongCount += 1
        let why = "\(count) chunks from \(url) differ from their checksums"
        guard source.wrongCount + 1 < Self.wrongCountMax else {
            return giveUp(
                url, why + ", again and again: it has another version, or its memory is bad")
        }
        // Its answer to the renewal tells whether it still has what it had.
        sources[url]?.reason = why
        sources[url]?.isDoubted = true
        followers.append(
            Task {
                _ = await self.ask(source.address)
                self.sources[url]?.isDoubted = false
            })
    }

    // MARK: Checksums

    /// What the chunks have to be, as long as the generation is the truth's; `nil` when nobody tells now.
    func expectedChecksums(_ chunks: [Int], beside url: String) async -> (
        generation: Int, values: [UInt32]
    )? {
        var generation = truth.generation
        var values: [UInt32] = []
        for chunk in chunks.lazy.map(target.layout.sourceChunk) {
            let block = chunk / ChecksumTruth.blockCount
            guard let known = await self.block(block, beside: url) else { return nil }
            // Values of two generations together are of no use: the caller sees the older one's.
            if values.isEmpty { generation = truth.generation }
            values.append(known[chunk % ChecksumTruth.blockCount])
        }
        return (generation, values)
    }

    private func block(_ block: Int, beside url: String) async -> [UInt32]? {
        if truth.isProven, let known = truth.blocks[block] { return known }
        guard let source = truth.source ?? successor(beside: url) else { return nil }
        let generation = truth.generation
        // One that has not decided before has to have all that has arrived.
        let unproven = truth.isProven ? [] : truth.arrivedBlocks.subtracting([block]).sorted()
        for block in unproven + [block] where truth.blocks[block] == nil {
            guard await ask(source, for: block), truth.generation == generation else { return nil }
        }
        truth.isProven = true
        return truth.blocks[block]
    }

    /// Takes the checksums of a block from the source that decides; `false` when it does not tell them, or has
    /// others than those that have arrived.
    private func ask(_ source: String, for block: Int) async -> Bool {
        guard let lease = sources[source]?.lease, let address = sources[source]?.address else {
            return false
        }
        let generation = truth.generation
        let chunks = ChecksumTruth.chunks(of: block, in: offer.order.grid)
        do throws(SourceClient.Refusal) {
            let values = try await offer.client.checksums(chunks, of: lease.id, at: address)
            guard truth.generation == generation else { return false }
            if let conflict = chunks.first(where: { chunk in
                target.checksums.known(chunk).map { $0 != values[chunk - chunks.lowerBound] }
                    ?? false
            }) {
                giveUp(
                    source,
                    "\(source) has another version of \(offer.request.checkpoint): chunk "
                        + "\(conflict) is not what others have")
                return false
            }
            truth.blocks[block] = values
            return true
        } catch {
            // A lease that has ended meanwhile says nothing; whether there is another the source tells.
            if sources[source]?.lease?.id == lease.id { suspend(source, error.message) }
            return false
        }
    }

    /// Whose checksums count when those of the first source are not to be had any more: a source that has
    /// everything, if there is one.
    private func successor(beside url: String) -> String? {
        let leased = sources.values.filter { $0.lease != nil }
        let complete = leased.filter { $0.lease?.state.arrived == nil }
        let candidates = (complete.isEmpty ? leased : complete).map(\.address.url)
        let next = candidates.contains(url) ? url : candidates.first
        next.map { truth.adopt($0) }
        return next
    }
}

/// The checksums that decide, block by block, and the source that they are from.
struct ChecksumTruth: Sendable {
    static let blockCount = 128

    var source: String?
    var blocks: [Int: [UInt32]] = [:]
    /// The blocks of chunks that have arrived.
    var arrivedBlocks: Set<Int> = []
    /// Whether the source has what has arrived before it decided.
    var isProven = false
    /// How many sources have decided.
    private(set) var generation = 0

    /// Lets another source decide. What the one before said counts no more: of two versions that begin
    /// alike it may have had the other.
    mutating func adopt(_ url: String) {
        source = url
        blocks = [:]
        isProven = false
        generation += 1
    }

    static func chunks(of block: Int, in grid: ChunkGrid) -> Range<Int> {
        (block * blockCount)..<min((block + 1) * blockCount, grid.count)
    }
}
