import Synchronization

/// How many requests may wait for the end of an update or a pull, so that others find a place.
final class WaitBudget: Sendable {
    private let countMax: Int
    private let count = Mutex(0)

    init(countMax: Int) {
        self.countMax = countMax
    }

    /// Runs `wait` if fewer than the most requests wait.
    func hold<Value: Sendable>(_ wait: () async throws -> Value) async throws -> Value {
        let isTaken = count.withLock { count in
            guard count < countMax else { return false }
            count += 1
            return true
        }
        guard isTaken else {
            throw ControlError(
                .overloaded,
                "\(countMax) requests wait for the end of an update or a pull already: ask without "
                    + "waiting (\"wait\": false), and for the status later")
        }
        defer { count.withLock { $0 -= 1 } }
        return try await wait()
    }
}
