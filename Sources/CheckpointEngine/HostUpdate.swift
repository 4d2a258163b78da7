import CheckpointHosts
import CheckpointWorker
import Synchronization

/// One update that several hosts make together, as this host sees it: the hosts wait for each other before
/// any engine's weights are touched and before any is committed.
final class HostUpdate: Sendable {
    /// What all hosts wait for each other at.
    static let gates: Set<SessionStage> = [.reload, .commit]

    private let group: HostGroup
    let scope: String
    private let deadline: ContinuousClock.Instant
    private let signal: LinkSignal
    private let failure = Mutex<HostError?>(nil)

    init(
        _ group: HostGroup, scope: String, deadline: ContinuousClock.Instant, signal: LinkSignal
    ) {
        self.group = group
        self.scope = scope
        self.deadline = deadline
        self.signal = signal
    }

    /// Another host has failed, or is gone.
    func failed(_ error: HostError) {
        failure.withLock { $0 = $0 ?? error }
        signal.fail(error)
    }

    /// Why copies between the hosts have failed: a host that fails leaves its groups, which the others
    /// notice before they hear why. `nil` where no host tells within the time, which is twice as long
    /// on host 0: hosts that have lost each other, and know of nothing else, do not all wait to be told.
    func cause(within time: Duration) async -> HostError? {
        let end = ContinuousClock.now + (group.rank == 0 ? time * 2 : time)
        while true {
            if let failure = failure.withLock({ $0 }) { return failure }
            guard ContinuousClock.now < end, !Task.isCancelled else { return nil }
            try? await Task.sleep(for: .milliseconds(5))
        }
    }

    /// The workers of this host are ready for `stage`, which is told once; it begins when those of all hosts are.
    func arrived(at stage: SessionStage) {
        Task {
            do throws(HostError) {
                _ = try await group.exchange(scope, "\(stage)", [], deadline: deadline)
                signal.permit(stage)
            } catch {
                signal.fail(error)
            }
        }
    }
}

extension LinkSignal {
    func fail(_ error: HostError) {
        fail(
            WorkerError(
                error.code == .deadlineExceeded ? .deadlineExceeded : .hostFailed, error.message))
    }
}
