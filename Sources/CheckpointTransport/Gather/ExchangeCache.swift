public import CheckpointDevice
import Synchronization

/// The exchanges between GPUs that are kept from update to update: a communicator is expensive to make.
public final class ExchangeCache: Sendable {
    private let ncclLibraryNames: [String]
    private let rails = Mutex<(gpus: [Int], rails: HostRails)?>(nil)
    private let kept = Mutex<[[Int]: NcclBroadcasts]>([:])

    /// Opens NCCL, by one of these names, when it is first asked for.
    public init(ncclLibraryNames: [String]) { self.ncclLibraryNames = ncclLibraryNames }

    /// Copies between GPUs that reach each other.
    public func peerCopies(_ gpus: [GPU]) throws(DeviceError) -> any GatherExchange {
        try PeerCopies(gpus)
    }

    /// NCCL between `gpus`; made by `deadline` if it is not there.
    public func nccl(_ gpus: [GPU], deadline: ContinuousClock.Instant)
        throws(DeviceError) -> any GatherExchange
    {
        let key = gpus.map(\.device.index)
        if let known = kept.withLock({ $0[key] }), known.isUsable { return known }
        let made = try NcclBroadcasts(gpus, table: table(), deadline: deadline)
        kept.withLock { $0[key] = made }
        return made
    }

    /// The rails of the last update with other hosts, if they are those of `gpus`.
    public func rails(_ gpus: [GPU]) -> HostRails? {
        rails.withLock { known in
            guard let known, known.gpus == gpus.map(\.device.index), known.rails.isUsable else {
                return nil
            }
            return known.rails
        }
    }

    public func keep(_ made: HostRails, _ gpus: [GPU]) {
        rails.withLock { $0 = (gpus.map(\.device.index), made) }
    }

    /// NCCL's functions.
    public func table() throws(DeviceError) -> NcclTable {
        try NcclTable(libraryNames: ncclLibraryNames)
    }

    /// Leaves every group.
    public func removeAll() {
        let removed = kept.withLock { kept in
            defer { kept = [:] }
            return kept
        }
        _ = removed
        let left = rails.withLock { rails in
            defer { rails = nil }
            return rails
        }
        _ = left
    }
}
