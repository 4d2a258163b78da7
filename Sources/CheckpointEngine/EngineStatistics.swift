/// Counters and gauges since the engine's start, for `/metrics`.
public struct EngineStatistics: Hashable, Sendable {
    public var checkpoints = 0
    /// Bytes of shared memory in the pool that registered checkpoints use.
    public var pooledBytes = 0
    /// Bytes of shared memory that are kept for the next version.
    public var retainedBytes = 0
    public var inPlaceBytes = 0
    /// Bytes of shared memory that are pinned for GPUs.
    public var pinnedBytes = 0
    /// Bytes of GPU memory that are kept between updates, on all GPUs.
    public var gpuBytes = 0
    public var registrations = 0
    public var registrationFailures = 0
    public var registeredBytes = 0
    public var registerSeconds = 0.0
    public var pulls = 0
    public var pullFailures = 0
    /// Bytes that were read from other hosts.
    public var pulledBytes = 0
    public var pullSeconds = 0.0
    /// Leases that other hosts have now, and have had.
    public var leases = 0
    public var leasesBegun = 0
    public var updatesRunning = 0
    public var updatesSucceeded = 0
    /// By error code.
    public var updatesFailed: [String: Int] = [:]
    /// Once for each worker.
    public var deliveredBytes = 0
    public var updateSeconds = 0.0
    /// Duration of the last successful update; `nil` before the first.
    public var lastUpdateSeconds: Double?
    /// Seconds by stage, summed over updates.
    public var stageSeconds: [UpdateStatus.Stage: Double] = [:]

    public init() {}
}

extension Int {
    /// Adds to a counter, which stays at the largest number where it would overflow: each of many checkpoints may
    /// claim as many bytes as one can have, in files with holes.
    mutating func count(_ other: Int) {
        let (sum, overflow) = addingReportingOverflow(other)
        self = overflow ? .max : sum
    }
}
