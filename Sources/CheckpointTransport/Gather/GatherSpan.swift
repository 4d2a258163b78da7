import CheckpointDevice
import CheckpointPlan

/// One stage of one bucket on one GPU, as it was measured.
public struct GatherSpan: Hashable, Sendable {
    public enum Stage: Hashable, Sendable {
        /// The copy of the GPU's share from the host.
        case stage
        /// The exchange of the shares between GPUs.
        case gather
    }

    /// The GPU's index.
    public let gpu: Int
    public let bucket: Int
    public let stage: Stage
    public let start: ContinuousClock.Instant
    public let end: ContinuousClock.Instant
    public let byteCount: Int
}

extension GatherRun {
    /// What happened when; of a run that has returned without an error.
    public func spans() -> [GatherSpan] {
        var spans: [GatherSpan] = []
        for (index, mark) in marks.enumerated() {
            let gpu = job.gpus[index].device.index
            for bucket in job.plan.buckets.indices {
                let staged = job.stagedShare(bucket, index).count
                let share = job.share(bucket, index).count
                if staged > 0, let start = mark.time(of: mark.stageStart(bucket)),
                    let end = mark.time(of: mark.staged(bucket))
                {
                    spans.append(
                        GatherSpan(
                            gpu: gpu, bucket: bucket, stage: .stage, start: start, end: end,
                            byteCount: staged))
                }
                if job.gpus.count > 1 || job.railCount > 0,
                    let start = mark.time(of: mark.gatherStart(bucket)),
                    let end = mark.time(of: mark.gathered(bucket))
                {
                    spans.append(
                        GatherSpan(
                            gpu: gpu, bucket: bucket, stage: .gather, start: start, end: end,
                            byteCount: share * max(1, job.gpus.count - 1)))
                }
            }
        }
        return spans
    }
}
