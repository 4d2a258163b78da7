import CheckpointWorker

/// The same step for several engines at once.
enum SideBySide {
    /// Does `step` for each of `indices`. The first failure is told at once, ends the others, and is
    /// returned when all have ended.
    static func firstFailure<Indices: Sequence<Int>>(
        _ indices: Indices, _ step: @escaping @Sendable (Int) async throws(WorkerError) -> Void,
        onFailure: (WorkerError) -> Void = { _ in }
    ) async -> WorkerError? {
        await withTaskGroup(of: WorkerError?.self) { group in
            for index in indices {
                group.addTask {
                    do throws(WorkerError) {
                        try await step(index)
                        return nil
                    } catch {
                        return error
                    }
                }
            }
            var first: WorkerError?
            for await failure in group {
                guard let failure, first == nil else { continue }
                first = failure
                onFailure(failure)
                group.cancelAll()
            }
            return first
        }
    }
}
