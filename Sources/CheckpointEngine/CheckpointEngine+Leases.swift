import CheckpointFiles
public import CheckpointModel
import CheckpointPlan
import CheckpointPull
import CheckpointTransfer
import Logging

/// What other hosts ask of this one: to read its checkpoints, for as long as they say that they go on.
extension CheckpointEngine {
    /// How long one request waits for checksums to be computed.
    private static let checksumTimeout = Duration.seconds(50)
    /// Chunks of one request for checksums.
    public static let checksumCountMax = 1 << 16

    /// Begins a lease and describes what is read, as JSON for the reader. `reader` is the URL under which
    /// others can read from it, `peer` the address that it asks from.
    public func beginLease(_ name: CheckpointName, reader: String?, peer: String? = nil)
        async throws(EngineError) -> [UInt8]
    {
        try checkRunning()
        let reader = try reader.map { text throws(EngineError) in try Self.reader(text) }
        let registered = try shareable(name)
        let shared = try registered.sharing.shared(registered)
        let endpoints = try await endpoints(of: registered)
        let lease: LeaseBook.Lease
        do throws(LeaseBook.Refusal) {
            lease = try leases.begin(
                name, incarnation: registered.incarnation,
                byteCount: registered.catalog.byteCount, reader: reader, peer: peer, at: .now)
        } catch {
            throw EngineError(error, reader ?? peer)
        }
        logger.info(
            "a lease begins",
            metadata: [
                "lease": "\(lease.id)", "checkpoint": "\(name)", "reader": "\(reader ?? "")",
            ])
        return SourceLease(
            id: lease.id, state: state(of: lease, registered, shared, endpoints),
            incarnation: registered.incarnation, digest: shared.digest,
            chunkByteCount: shared.grid.chunkByteCount,
            shardByteCounts: shared.grid.shardByteCounts
        ).encoded()
    }

    private static func reader(_ text: String) throws(EngineError) -> String {
        do throws(AddressFlaw) {
            return try SourceAddress(url: text).url
        } catch {
            throw EngineError(.invalidArgument, "the reader's URL: \(error)")
        }
    }

    /// Goes on with a lease, and tells how things are now. The reader has so many bytes from here, where it
    /// says so.
    public func renewLease(_ id: String, received: Int? = nil) async throws(EngineError) -> [UInt8]
    {
        let (lease, registered) = try leased(id)
        let shared = try registered.sharing.shared(registered)
        let endpoints = try await endpoints(of: registered)
        leases.renew(id, received: received, at: .now)
        return state(of: lease, registered, shared, endpoints).encoded()
    }

    /// The tensors of what is read, in the order of delivery.
    public func leaseCatalog(_ id: String) throws(EngineError) -> [UInt8] {
        let (_, registered) = try leased(id)
        return try registered.sharing.shared(registered).catalogBody
    }

    /// The CRC-32C of adjacent chunks, four bytes each, the lowest first. The first call has them computed.
    public func leaseChecksums(_ id: String, first: Int, count: Int) async throws(EngineError)
        -> [UInt8]
    {
        let (_, registered) = try leased(id)
        let shared = try registered.sharing.shared(registered)
        guard (1...Self.checksumCountMax).contains(count), first >= 0,
            first <= shared.grid.count - count
        else {
            throw EngineError(
                .invalidArgument,
                "there are \(shared.grid.count) chunks, and at most \(Self.checksumCountMax) "
                    + "checksums are told at once: not \(count) from \(first) on")
        }
        let values: [UInt32]?
        do throws(PullError) {
            values = try await shared.checksums.values(
                first..<(first + count), deadline: .now + Self.checksumTimeout)
        } catch {
            throw EngineError(error)
        }
        guard let values else {
            throw EngineError(
                .deadlineExceeded, "the checksums are not known yet; ask again")
        }
        // They count only if the memory was this checkpoint's all the time.
        _ = try leased(id)
        return values.flatMap { value in
            (0..<4).map { UInt8(truncatingIfNeeded: value >> (8 * UInt32($0))) }
        }
    }

    /// Ends a lease: the next reader's turn begins.
    public func endLease(_ id: String) throws(EngineError) {
        guard leases.end(id) else { throw Self.noLease(id) }
        logger.info("a lease has ended", metadata: ["lease": "\(id)"])
    }

    /// Has the checksums computed before somebody asks for them, while no update needs the memory's bandwidth.
    nonisolated func computeChecksums(_ registered: RegisteredCheckpoint) {
        let running = runningCount
        Task.detached {
            // What cannot be read is told to whoever asks.
            let shared = try? registered.sharing.shared(registered)
            shared?.checksums.computeAhead { running.value > 0 }
        }
    }

    /// Unmaps the files that are used in place; the pool's stay mapped for the next version.
    func stopSharing(_ registered: RegisteredCheckpoint) async {
        await stopSharing(registered.shards.filter(\.isSharedMemory).map(\.path))
    }

    /// Unmaps files that no checkpoint has any more.
    private func stopSharing(_ paths: [String]) async {
        for path in paths {
            let isUsed = entries.values.contains { entry in
                guard case .ready(let other) = entry.state else { return false }
                return other.locations.contains { $0.path == path }
            }
            if !isUsed { await sharingAgents.remove(path: path) }
        }
    }

    // MARK: Steps

    private static func noLease(_ id: String) -> EngineError {
        EngineError(
            .notFound,
            "there is no lease \(id.prefix(80)): it has ended, or the checkpoint was unregistered or "
                + "replaced")
    }

    private func leased(_ id: String) throws(EngineError) -> (
        LeaseBook.Lease, RegisteredCheckpoint
    ) {
        guard let lease = leases.find(id, at: .now),
            case .ready(let registered)? = entries[lease.checkpoint]?.state,
            registered.incarnation == lease.incarnation
        else {
            leases.end(id)
            throw Self.noLease(id)
        }
        return (lease, registered)
    }

    private func shareable(_ name: CheckpointName) throws(EngineError) -> RegisteredCheckpoint {
        guard case .ready(let registered) = try entry(name).state else {
            throw EngineError(.busy, "\(name) is still being registered; wait for its end")
        }
        try registered.checkKept(name)
        return registered
    }

    /// Where the agents that others read from have the checkpoint's shards; at least one of them has all.
    /// Throws, and leaves nothing mapped, when the checkpoint is unregistered meanwhile.
    func endpoints(of registered: RegisteredCheckpoint) async throws(EngineError)
        -> [SourceEndpoint]
    {
        for location in registered.locations {
            await sharingAgents.add(
                TransferMapping(
                    path: location.path, inode: location.inode,
                    byteCount: location.fileByteCount, isWritable: false))
        }
        let found: Result<[SourceEndpoint], EngineError>
        do throws(EngineError) {
            found = .success(try await mapped(registered))
        } catch {
            found = .failure(error)
        }
        guard isRegistered(registered) else {
            // Whoever unregistered it may have come before the files were added.
            await stopSharing(registered.locations.map(\.path))
            throw EngineError(
                .notFound, "the checkpoint was unregistered or replaced while it was shared")
        }
        return try found.get()
    }

    private func isRegistered(_ registered: RegisteredCheckpoint) -> Bool {
        entries.values.contains { entry in
            guard case .ready(let other) = entry.state else { return false }
            return other.incarnation == registered.incarnation
        }
    }

    private func mapped(_ registered: RegisteredCheckpoint) async throws(EngineError)
        -> [SourceEndpoint]
    {
        do throws(TransferError) {
            let current = try await sharingAgents.current()
            let first = try Self.endpoint(registered, in: current[0])
            return [first]
                + current.dropFirst().compactMap { try? Self.endpoint(registered, in: $0) }
        } catch {
            throw EngineError(error)
        }
    }

    private static func endpoint(
        _ registered: RegisteredCheckpoint, in current: TransferAgentKeeper.Current
    ) throws(TransferError) -> SourceEndpoint {
        var addresses: [UInt] = []
        for location in registered.locations {
            guard let address = current.addresses[ExactString(location.path)] else {
                throw current.failures[ExactString(location.path)]
                    ?? TransferError(.failed, "\(location.path) is not mapped")
            }
            addresses.append(address + UInt(location.dataOffset))
        }
        return SourceEndpoint(session: current.session, addresses: addresses)
    }

    private func state(
        of lease: LeaseBook.Lease, _ registered: RegisteredCheckpoint, _ shared: SharedCheckpoint,
        _ endpoints: [SourceEndpoint]
    ) -> LeaseState {
        let feed = registered.feed.flatMap { $0.isComplete ? nil : $0 }
        return LeaseState(
            secondsLeft: LeaseBook.duration.inSeconds,
            isActive: leases.isActive(lease.id, at: .now),
            readers: leases.readers(beside: lease.id), arrived: feed?.runs,
            content: shared.checksums.content, endpoints: endpoints)
    }
}

extension EngineError {
    init(_ error: TransferError) {
        self.init(error.code == .cancelled ? .cancelled : .system, error.message)
    }

    fileprivate init(_ refusal: LeaseBook.Refusal, _ reader: String?) {
        switch refusal {
        case .tooMany:
            self.init(.busy, "\(LeaseBook.countMax) readers are there already; ask again later")
        case .tooManyOfOne:
            self.init(
                .busy,
                "\(reader ?? "this reader") has as many leases as one may have: "
                    + "\(LeaseBook.readerLeaseCountMax) for a URL, \(LeaseBook.peerCountMax) for an "
                    + "address; end some, or let them end \(LeaseBook.duration) after their renewal"
            )
        }
    }
}
