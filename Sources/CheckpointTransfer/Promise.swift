import Synchronization

/// Why a wait ended without what it was for.
enum WaitEnd: Error {
    case timedOut
    case cancelled
}

/// A value that comes once, and the tasks that wait for it.
final class Promise<Value: Sendable>: Sendable {
    private typealias Answer = Result<Value, WaitEnd>

    private struct Waiter {
        let continuation: CheckedContinuation<Answer, Never>
        let timer: Task<Void, Never>?
    }

    private struct State {
        var value: Value?
        var waiters: [Int: Waiter] = [:]
        var waiterCount = 0
    }

    private let state = Mutex(State())

    /// The value, when it is there.
    var valueNow: Value? { state.withLock { $0.value } }

    /// Gives the value to all who wait and will wait; `false`, and nothing happens, when there is
    /// one.
    @discardableResult
    func fulfil(_ value: Value) -> Bool {
        let waiters = state.withLock { state -> [Int: Waiter]? in
            guard state.value == nil else { return nil }
            state.value = value
            defer { state.waiters = [:] }
            return state.waiters
        }
        guard let waiters else { return false }
        for waiter in waiters.values {
            waiter.timer?.cancel()
            waiter.continuation.resume(returning: .success(value))
        }
        return true
    }

    /// Waits for the value: no longer than `timeout`, and no longer than the task is wanted.
    func value(within timeout: Duration?) async throws(WaitEnd) -> Value {
        let number = state.withLock { state in
            state.waiterCount += 1
            return state.waiterCount
        }
        let answer: Answer = await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                begin(number, timeout, continuation)
            }
        } onCancel: {
            end(number, .cancelled)
        }
        return try answer.get()
    }

    private func begin(
        _ number: Int, _ timeout: Duration?, _ continuation: CheckedContinuation<Answer, Never>
    ) {
        let answer = state.withLock { state -> Answer? in
            if let value = state.value { return .success(value) }
            // A task that is cancelled after this calls `end` after this, which waits for the lock.
            if Task.isCancelled { return .failure(.cancelled) }
            let timer = timeout.map { self.timer(for: number, $0) }
            state.waiters[number] = Waiter(continuation: continuation, timer: timer)
            return nil
        }
        if let answer { continuation.resume(returning: answer) }
    }

    private func timer(for number: Int, _ timeout: Duration) -> Task<Void, Never> {
        Task {
            do { try await Task.sleep(for: timeout) } catch { return }
            end(number, .timedOut)
        }
    }

    private func end(_ number: Int, _ reason: WaitEnd) {
        guard let waiter = state.withLock({ $0.waiters.removeValue(forKey: number) }) else {
            return
        }
        waiter.timer?.cancel()
        waiter.continuation.resume(returning: .failure(reason))
    }
}
