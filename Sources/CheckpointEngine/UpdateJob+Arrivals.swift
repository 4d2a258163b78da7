import CheckpointPlan
import CheckpointPull
import CheckpointWorker

/// Updates from a checkpoint that is still arriving from other hosts.
extension UpdateJob {
    /// Whether bytes are still missing.
    var isStreaming: Bool { registered.feed.map { !$0.isComplete } ?? false }

    /// Lets buckets be delivered as they arrive, and ends the update when the rest will not come; returns what
    /// ends that. The tensors of `buckets` stand in the order of the catalog.
    func followArrivals(_ buckets: [DeliverySchedule.Bucket], _ gather: RunningGather?)
        -> (@Sendable () -> Void)?
    {
        guard let feed = registered.feed else { return nil }
        let ends = buckets.map { $0.first + $0.count }
        let signal = signal
        let follower = feed.follow { event in
            switch event {
            case .ranges(let count):
                let arrived = ends.prefix { $0 <= count }.count
                if let gather { gather.runs.arrive(arrived) } else { signal.available(arrived) }
            case .failed(let error): signal.fail(Self.failure(error))
            }
        }
        return { feed.unfollow(follower) }
    }

    /// Frees the ring that a checkpoint passes through; `nil` for one that is kept.
    func delivered(_ buckets: [DeliverySchedule.Bucket]) -> DeliveredBuckets? {
        registered.passing.map { passing in
            DeliveredBuckets(
                room: passing.room, ends: [0] + buckets.map { $0.first + $0.count })
        }
    }

    private static func failure(_ error: PullError) -> WorkerError {
        let code: WorkerError.Code =
            switch error.code {
            case .agentMissing, .system, .memoryInUse, .insufficientMemory: .callFailed
            case .noSource, .sourceFailed, .invalidAnswer, .changed: .sourceFailed
            case .cancelled: .cancelled
            }
        return WorkerError(code, error.message)
    }

    /// Waits until everything is here, for deliveries that need it.
    func waitForArrivals() async throws(EngineError) {
        guard let feed = registered.feed else { return }
        do throws(PullError) { try await feed.waitUntilComplete() } catch {
            throw EngineError(error)
        }
    }
}
