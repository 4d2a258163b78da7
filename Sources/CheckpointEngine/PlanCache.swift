import CheckpointModel
import CheckpointPlan
import CheckpointWorker
import Synchronization

/// The gather plans of one checkpoint that were made last: the next update mostly has the same budget, and
/// the same other hosts.
final class PlanCache: Sendable {
    private struct State {
        var alone: PlannedGather?
        var together: (key: String, union: HostUnion, plan: PlannedGather?)?
    }

    private let state = Mutex(State())

    /// The plan of one host's own catalog.
    func gather(_ catalog: Catalog, _ budget: RingBudget) -> PlannedGather {
        if let known = state.withLock({ $0.alone }), known.plan.budget == budget { return known }
        let planned = PlannedGather(HostUnion(catalog: catalog), budget)
        state.withLock { $0.alone = planned }
        return planned
    }

    /// The key of the union that is known.
    var unionKey: String { state.withLock { $0.together?.key ?? "" } }

    /// The union of that key, where it is known.
    func union(_ key: String) -> HostUnion? {
        state.withLock { $0.together?.key == key ? $0.together?.union : nil }
    }

    func keep(_ union: HostUnion, key: String) {
        state.withLock { $0.together = (key, union, nil) }
    }

    /// The plan of the union that is known.
    func gather(_ union: HostUnion, _ budget: RingBudget, gates: Set<SessionStage>)
        -> PlannedGather
    {
        let known = state.withLock { $0.together?.union == union ? $0.together?.plan : nil }
        if let known, known.plan.budget == budget { return known }
        let planned = PlannedGather(union, budget, gates: gates)
        state.withLock { if $0.together?.union == union { $0.together?.plan = planned } }
        return planned
    }
}
