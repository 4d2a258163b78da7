import CheckpointFiles
public import CheckpointModel
import CheckpointPlan
import CheckpointPull
import Logging

/// Checkpoints that consist of others: the parts that the processes of a trainer have registered.
extension CheckpointEngine {
    /// Makes `name` the checkpoint of all tensors of `parts`, which stay registered; no bytes are moved. What
    /// was composed under that name before is replaced.
    @discardableResult
    public func compose(_ name: CheckpointName, of parts: [CheckpointName]) throws(EngineError)
        -> CheckpointSummary
    {
        try checkRunning()
        guard !parts.isEmpty, Set(parts).count == parts.count, !parts.contains(name) else {
            throw EngineError(
                .invalidArgument,
                "\(name) has to consist of one or more other checkpoints, each named once")
        }
        if let entry = entries[name] {
            guard !entry.parts.isEmpty else {
                throw EngineError(
                    .alreadyExists,
                    "\(name) is a checkpoint of its own and stays so; unregister it first, or choose "
                        + "another name")
            }
            if let update = entry.runningUpdate {
                throw EngineError(
                    .busy, "\(name) is being delivered by \(update); wait for its end")
            }
        }
        let registered = try parts.map { part throws(EngineError) in (part, try ready(part)) }
        let composed = try RegisteredCheckpoint.composed(
            of: registered, bucketByteCountMax: configuration.bucketByteCountMax)
        let entry = RegistryEntry(
            name: name, consumes: false, parts: parts, state: .ready(composed))
        entries[name] = entry
        logger.info(
            "checkpoint composed",
            metadata: [
                "checkpoint": "\(name)", "parts": "\(parts.count)",
                "tensors": "\(composed.catalog.tensors.count)",
                "bytes": "\(composed.catalog.byteCount)",
            ])
        return entry.summary
    }

    /// Forgets what `name` is a part of; refuses while one of them is being delivered.
    func forgetCompositions(with name: CheckpointName) throws(EngineError) {
        let compositions = entries.values.filter { $0.parts.contains(name) }
        for composition in compositions {
            guard let update = composition.runningUpdate else { continue }
            throw EngineError(
                .busy,
                "\(composition.name), which \(name) is a part of, is being delivered by \(update); "
                    + "wait for its end, or cancel it")
        }
        for composition in compositions { entries[composition.name] = nil }
    }

    /// An update from the checkpoint has succeeded, and so from each of its parts.
    func noteUpdate(of name: CheckpointName) {
        entries[name]?.hasUpdated = true
        for part in entries[name]?.parts ?? [] { entries[part]?.hasUpdated = true }
    }

    private func ready(_ name: CheckpointName) throws(EngineError) -> RegisteredCheckpoint {
        let entry = try entry(name)
        guard case .ready(let registered) = entry.state else {
            throw EngineError(.busy, "\(name) is still being registered; wait for its end")
        }
        try registered.checkKept(name)
        guard registered.feed?.isComplete ?? true else {
            throw EngineError(
                .busy, "\(name) is still being read from other hosts; wait for its end")
        }
        guard entry.parts.isEmpty else {
            throw EngineError(
                .invalidArgument, "\(name) consists of parts itself; name those instead")
        }
        return registered
    }
}

extension RegisteredCheckpoint {
    /// All tensors of `parts`. It has no memory of its own.
    static func composed(
        of parts: [(name: CheckpointName, checkpoint: RegisteredCheckpoint)],
        bucketByteCountMax: Int
    ) throws(EngineError) -> RegisteredCheckpoint {
        var shards: [Catalog.Shard] = []
        var tensors: [TensorEntry] = []
        var owners: [ExactString: CheckpointName] = [:]
        for (name, checkpoint) in parts {
            for tensor in checkpoint.catalog.tensors {
                if let other = owners.updateValue(name, forKey: ExactString(tensor.name)) {
                    throw EngineError(
                        .invalidCheckpoint,
                        "both \(other) and \(name) have the tensor \(tensor.name); register each "
                            + "tensor in one part only")
                }
                tensors.append(
                    TensorEntry(
                        name: tensor.name, dtype: tensor.dtype, shape: tensor.shape,
                        shard: shards.count + tensor.shard, range: tensor.range))
            }
            shards += checkpoint.catalog.shards
        }
        let catalog: Catalog
        do throws(Catalog.Flaw) {
            catalog = try Catalog(shards: shards, tensors: tensors)
        } catch {
            throw EngineError(.invalidCheckpoint, "the parts do not make one checkpoint: \(error)")
        }
        let plan = UpdatePlan(catalog: catalog, bucketByteCountMax: bucketByteCountMax)
        return RegisteredCheckpoint(
            shards: parts.flatMap(\.checkpoint.shards),
            catalog: catalog.ordered(plan.order),
            locations: parts.flatMap(\.checkpoint.locations),
            pins: parts.flatMap(\.checkpoint.pins), segments: [], buckets: plan.buckets,
            seconds: parts.reduce(0) { $0 + $1.checkpoint.seconds },
            digest: String(plan.digest, radix: 16))
    }
}
