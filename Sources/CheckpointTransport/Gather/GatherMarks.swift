import CheckpointDevice
import Synchronization

/// The events of one GPU in one run: they order the streams, and tell afterwards when what was done.
final class GatherMarks: Sendable {
    private static let eventsPerBucket = 4

    private let events: [CudaEvent]
    /// When the base event was reached, by the host's clock.
    private let base = Mutex<ContinuousClock.Instant?>(nil)

    init(_ gpu: GPU, bucketCount: Int) throws(DeviceError) {
        events = try gpu.events(bucketCount * Self.eventsPerBucket + 1)
    }

    /// Marks the point of time that the others are measured from.
    func begin(_ stream: CudaStream) throws(DeviceError) {
        try stream.record(events[0])
        try events[0].synchronize()
        base.withLock { $0 = .now }
    }

    func stageStart(_ bucket: Int) -> CudaEvent { event(bucket, 0) }
    func staged(_ bucket: Int) -> CudaEvent { event(bucket, 1) }
    func gatherStart(_ bucket: Int) -> CudaEvent { event(bucket, 2) }
    func gathered(_ bucket: Int) -> CudaEvent { event(bucket, 3) }

    private func event(_ bucket: Int, _ place: Int) -> CudaEvent {
        events[1 + bucket * Self.eventsPerBucket + place]
    }

    /// When an event of a finished run was reached, by the host's clock; `nil` where it was not.
    func time(of event: CudaEvent) -> ContinuousClock.Instant? {
        guard let start = base.withLock({ $0 }),
            let seconds = try? event.seconds(since: events[0])
        else { return nil }
        return start + .seconds(seconds)
    }
}
