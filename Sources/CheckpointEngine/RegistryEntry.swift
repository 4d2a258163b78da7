import CheckpointModel
import CheckpointPlan
import CheckpointPull
import Synchronization

/// One name of the registry and the state that its checkpoint is in.
struct RegistryEntry {
    enum State {
        case registering(RegistrationProgress)
        case ready(RegisteredCheckpoint)
    }

    let name: CheckpointName
    /// Whether the source files in shared memory are deleted in the end.
    let consumes: Bool
    /// The checkpoints that this one consists of; none for one with bytes of its own.
    var parts: [CheckpointName] = []
    var state: State
    /// The update that reads from it now.
    var runningUpdate: String?
    var hasUpdated = false
    /// Reads it from other hosts, while that goes on.
    var pull: Task<Void, Never>?

    var isRegistering: Bool {
        if case .registering = state { true } else { false }
    }

    private var currentState: CheckpointSummary.State {
        if runningUpdate != nil { return .updating }
        return arrivedByteCount == nil ? .ready : .pulling
    }

    /// Bytes that have arrived of a checkpoint that is being read; `nil` when all are there.
    private var arrivedByteCount: Int? {
        guard case .ready(let checkpoint) = state, let feed = checkpoint.feed, !feed.isComplete
        else { return nil }
        return min(
            feed.arrivedChunkCount * feed.order.grid.chunkByteCount, checkpoint.catalog.byteCount)
    }

    var summary: CheckpointSummary {
        switch state {
        case .registering(let progress):
            let (done, _) = progress.counts
            return CheckpointSummary(
                name: name.description, state: .registering, tensors: 0, files: 0, bytes: 0,
                pooledBytes: 0, inPlaceBytes: 0, dtypes: [:],
                registerSeconds: progress.start.duration(to: .now).inSeconds, registeredBytes: done,
                parts: [], kept: true)
        case .ready(let checkpoint):
            let catalog = checkpoint.catalog
            return CheckpointSummary(
                name: name.description, state: currentState,
                tensors: catalog.tensors.count, files: catalog.shards.count,
                bytes: catalog.byteCount, pooledBytes: checkpoint.pooledByteCount,
                inPlaceBytes: parts.isEmpty ? checkpoint.inPlaceByteCount : 0,
                dtypes: Dictionary(
                    uniqueKeysWithValues: catalog.countByDType.map { ($0.key.rawValue, $0.value) }),
                registerSeconds: checkpoint.seconds,
                registeredBytes: arrivedByteCount ?? catalog.byteCount,
                parts: parts.map(\.description), kept: checkpoint.passing == nil)
        }
    }
}

/// Counts the bytes of a registration as they are read; shared between its threads and whoever looks.
final class RegistrationProgress: Sendable {
    let start = ContinuousClock.now
    private let state = Mutex((done: 0, total: 0))
    private let cancelled = Atomic(false)

    var counts: (done: Int, total: Int) { state.withLock { $0 } }
    var isCancelled: Bool { cancelled.load(ordering: .relaxed) }

    func report(done: Int, total: Int) {
        state.withLock { $0 = (done, total) }
    }

    func cancel() { cancelled.store(true, ordering: .relaxed) }
}

extension Duration {
    var inSeconds: Double {
        Double(components.seconds) + Double(components.attoseconds) / 1e18
    }
}
