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

    /// Sources that were not named and are followed at a time, and in all.
    private static let toldCountMax = 64
    private static let knownCountMax = 2 * PullRequest.sourceCountMax

    /// Begins to follow a source, unless it is known.
    func add(_ address: SourceAddress, isNamed: Bool) {
        guard sources[address.url] == nil, sources.count < Self.knownCountMax,
            address.url != offer.request.reader
        else { return }
        guard
            isNamed
                || sources.values.count(where: { !$0.isNamed && $0.isWorthwhile })
                    < Self.toldCountMax
        else { return }
        sources[address.url] = PulledSource(address: address, isNamed: isNamed)
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
                    let state = try await offer.client.renew(
                        lease.id, received: sources[url]?.byteCount ?? 0, at: address,
                        timeout: offer.request.silenceMax)
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
                let address = try? SourceAddress(
                    url: reader, token: sources[url]?.address.token)
            else { continue }
            add(address, isNamed: false)
        }
        guard take(content: state.content, of: url) else { return Self.retryInterval }
        // One that is read decides, not one whose turn it is not: that may have another version.
        let mayDecide = sources[url]?.isNamed == true && state.isActive && state.arrived == nil
        if mayDecide, truth.source == nil, !truth.isWhole { decide(url) }
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
        // What waits for its checksums goes on with another source's.
        sources[url]?.cancelAsked()
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
}
