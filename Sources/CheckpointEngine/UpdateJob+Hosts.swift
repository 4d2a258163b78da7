import CheckpointDevice
import CheckpointHosts
import CheckpointModel
import CheckpointNative
import CheckpointPlan
import CheckpointTransport
import CheckpointWorker

/// Updates that several hosts make together.
extension UpdateJob {
    /// How long the other hosts may take to end, after this one has.
    private static let endGrace = Duration.seconds(30)

    func gather(together group: HostGroup, _ gpus: [GPU], _ endpoints: [[WorkerEndpoint]])
        async throws
    {
        let (scope, offers) = try await begin(group, gpus)
        let update = HostUpdate(group, scope: scope, deadline: deadline, signal: signal)
        await group.watch(scope) { update.failed($0) }
        do {
            let delivery = try await prepare(group, scope, offers, gpus)
            try await deliver(try await running(delivery), endpoints, update)
            // An update has succeeded when it has on every host.
            _ = try await group.exchange(
                scope, "committed", [], deadline: min(deadline, .now + Self.endGrace))
        } catch {
            await group.end(scope, reason: Self.text(of: error))
            await group.forget(scope)
            throw error
        }
        await group.forget(scope)
    }

    private static func text(of error: any Error) -> String {
        if let error = error as? WorkerError { return error.message }
        return "\(error)"
    }

    /// Meets the other hosts. All have to begin an update of a checkpoint of this name.
    private func begin(_ group: HostGroup, _ gpus: [GPU]) async throws -> (String, [HostOffer]) {
        let rails = exchanges.rails(gpus)
        let offer = HostOffer(
            nonce: "\(UInt64.random(in: 0 ... .max))",
            digest: registered.digest, unionKey: registered.plans.unionKey, gpuCount: gpus.count,
            freeByteCount: try GatherDelivery.tightest(gpus).byteCount,
            rails: rails.map { Self.text(of: $0.id) } ?? "")
        let scope = "begin \(checkpoint)"
        let answers: [[UInt8]]
        do throws(HostError) {
            answers = try await group.exchange(scope, "0", offer.bytes, deadline: deadline)
        } catch {
            await group.forget(scope)
            throw error
        }
        await group.forget(scope)
        let offers = try answers.enumerated().map { host, bytes in
            try HostOffer(bytes, host: host)
        }
        return ("update \(offers[0].nonce)", offers)
    }

    /// Agrees on what is delivered how, and joins the rails.
    private func prepare(
        _ group: HostGroup, _ scope: String, _ offers: [HostOffer], _ gpus: [GPU]
    ) async throws -> GatherDelivery {
        let union = try await union(group, scope, offers)
        let free = offers.map(\.freeByteCount).min() ?? 0
        let tightest = offers.firstIndex { $0.freeByteCount == free } ?? 0
        let budget = try GatherDelivery.budget(
            union.tensors, tightest: ("a GPU of host \(tightest)", free),
            slotByteCountMax: slotByteCountMax)
        let plan = registered.plans.gather(union, budget, gates: HostUpdate.gates)
        let railCount = offers.map(\.gpuCount).min() ?? 0
        let needsRails = union.places.contains { $0.owner != nil }
        let id = try await agree(
            group, scope, plan.plan.digest,
            railCount: needsRails && !Self.haveEqualRails(offers) ? railCount : 0)
        let rails = needsRails ? try await rails(gpus, id, group) : nil
        return try await BlockingThread.run("ckpt-prepare") { () throws(DeviceError) in
            let exchange: any GatherExchange =
                if let rails { rails } else { try exchanges.peerCopies(gpus) }
            return try GatherDelivery(
                registered, gpus: gpus, plan: plan, exchange: exchange, host: group.rank,
                railCount: rails?.railCount ?? 0)
        }
    }

    private static func haveEqualRails(_ offers: [HostOffer]) -> Bool {
        !offers[0].rails.isEmpty && offers.allSatisfy { $0.rails == offers[0].rails }
    }

    /// What the hosts have together. The catalogs are sent only when a host does not know them all.
    private func union(_ group: HostGroup, _ scope: String, _ offers: [HostOffer])
        async throws -> HostUnion
    {
        let key = "\(group.rank) " + offers.map(\.digest).joined(separator: " ")
        let common = offers.map(\.digest).joined(separator: " ")
        let knowAll = offers.enumerated().allSatisfy { $1.unionKey == "\($0) \(common)" }
        if knowAll, let known = registered.plans.union(key) { return known }
        let bodies = try await group.exchange(
            scope, "catalog", CatalogMessage.body(registered.catalog.tensors), deadline: deadline)
        let catalogs = try bodies.enumerated().map { host, body in
            host == group.rank ? registered.catalog.tensors : try CatalogMessage.rows(of: body)
        }
        let union: HostUnion
        do throws(HostUnion.Conflict) {
            union = try HostUnion(catalogs: catalogs, host: group.rank)
        } catch {
            throw EngineError(
                .invalidCheckpoint,
                "the hosts \(error.hosts) have the tensor \(error.name) with different types or "
                    + "shapes; register parts of one checkpoint on all hosts")
        }
        guard ByteCount.sum(union.tensors.lazy.map(\.range.byteCount)) != nil else {
            throw EngineError(
                .hostFailed,
                "the hosts together name more than \(ByteCount.range.upperBound) bytes: the catalog of "
                    + "one of them is wrong")
        }
        guard !union.tensors.isEmpty else {
            throw EngineError(
                .invalidCheckpoint,
                "no host has a tensor of \(checkpoint): an update from it would change nothing")
        }
        registered.plans.keep(union, key: key)
        return union
    }

    /// Compares the plans before anything moves; host 0 names new rails where they are needed.
    private func agree(_ group: HostGroup, _ scope: String, _ digest: UInt64, railCount: Int)
        async throws -> [UInt8]
    {
        var id: [UInt8] = []
        if group.rank == 0, railCount > 0 {
            let table = try exchanges.table()
            for _ in 0..<railCount { id += try table.makeID() }
        }
        let mine = (0..<8).map { UInt8(truncatingIfNeeded: digest >> ($0 * 8)) }
        let all = try await group.exchange(scope, "plan", mine + id, deadline: deadline)
        return try Self.railID(all, digest: mine, railCount: railCount)
    }

    /// The name of new rails, which host 0 gives after the digest of its plan; empty for none.
    static func railID(_ payloads: [[UInt8]], digest: [UInt8], railCount: Int) throws(EngineError)
        -> [UInt8]
    {
        if let other = payloads.firstIndex(where: { !$0.starts(with: digest) }) {
            throw EngineError(
                .hostFailed,
                "host \(other) has made another plan than this one: install the same version of "
                    + "checkpoint-engine, and give the same --bucket-size, on all hosts")
        }
        let id = Array(payloads[0].dropFirst(digest.count))
        guard id.count == railCount * HostRails.idByteCount else {
            throw EngineError(
                .hostFailed,
                "host 0 has named rails by \(id.count) bytes; \(railCount) rails have "
                    + "\(railCount * HostRails.idByteCount)")
        }
        return id
    }

    /// The rails of the update before, or new ones of the name `id`.
    private func rails(_ gpus: [GPU], _ id: [UInt8], _ group: HostGroup) async throws -> HostRails {
        if id.isEmpty {
            guard let known = exchanges.rails(gpus) else {
                throw EngineError(
                    .hostFailed,
                    "the connections of the GPUs to those of other hosts were given back while this "
                        + "update began; update again")
            }
            return known
        }
        let host = group.rank
        let count = group.count
        do throws(DeviceError) {
            let made = try await BlockingThread.run("ckpt-rails") { () throws(DeviceError) in
                try HostRails(
                    gpus, table: exchanges.table(), id: id, host: host, hostCount: count,
                    deadline: deadline, isCancelled: { signal.failure != nil })
            }
            exchanges.keep(made, gpus)
            return made
        } catch {
            // Whoever ended the update has told why.
            if error.code == .cancelled, let failure = signal.failure { throw failure }
            throw error
        }
    }

    private static func text(of id: [UInt8]) -> String {
        HexText.text(of: Array(id.prefix(HostRails.idByteCount)))
    }
}
