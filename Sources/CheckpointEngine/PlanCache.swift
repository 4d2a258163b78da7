import CheckpointModel
import CheckpointPlan
import Synchronization

/// The gather plan of one checkpoint that was made last: the next update mostly has the same budget.
final class PlanCache: Sendable {
    private let last = Mutex<PlannedGather?>(nil)

    func gather(_ catalog: Catalog, _ budget: RingBudget) -> PlannedGather {
        if let known = last.withLock({ $0 }), known.plan.budget == budget { return known }
        let planned = PlannedGather(catalog, budget)
        last.withLock { $0 = planned }
        return planned
    }
}
