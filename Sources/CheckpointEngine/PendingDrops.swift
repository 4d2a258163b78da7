import Synchronization

/// The agents that still have memory mapped which the pool has given up: the system has it back when they let go.
final class PendingDrops: Sendable {
    private let tasks = Mutex<[Task<Void, Never>]>([])

    func add(_ task: Task<Void, Never>) { tasks.withLock { $0.append(task) } }

    /// Waits until all have let go; whether there was one.
    func wait() async -> Bool {
        let pending = tasks.withLock { tasks in
            defer { tasks = [] }
            return tasks
        }
        for task in pending { await task.value }
        return !pending.isEmpty
    }
}
