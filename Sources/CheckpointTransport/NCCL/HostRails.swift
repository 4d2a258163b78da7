public import CheckpointDevice

/// The exchange of several hosts: GPU `i` of each host is on rail `i`. What only one host has goes over
/// the rails, each of which carries a share of it, and from there to the other GPUs of each host by peer
/// copies; what every host has does not leave it.
public final class HostRails: GatherExchange {
    /// Names of the rails' groups, one after the other.
    public let id: [UInt8]
    private let communicators: [NcclCommunicator]
    private let peers: PeerCopies

    public static let idByteCount = 128

    /// Joins the first GPUs of `gpus` to the rails of `hostCount` hosts; `id` has 128 bytes for each.
    public init(
        _ gpus: [GPU], table: NcclTable, id: [UInt8], host: Int, hostCount: Int,
        deadline: ContinuousClock.Instant, isCancelled: @escaping @Sendable () -> Bool
    ) throws(DeviceError) {
        self.id = id
        peers = try PeerCopies(gpus)
        let railCount = id.count / Self.idByteCount
        let ids = (0..<railCount).map { rail in
            Array(id[(rail * Self.idByteCount)..<((rail + 1) * Self.idByteCount)])
        }
        communicators = try NcclGroup.join(count: railCount) {
            rail, hasFailed throws(DeviceError) in
            try NcclCommunicator(
                table: table, gpu: gpus[rail], id: ids[rail], rank: host, count: hostCount,
                deadline: deadline, isCancelled: { hasFailed() || isCancelled() })
        }
    }

    public var railCount: Int { communicators.count }

    /// Whether nobody has left a rail.
    public var isUsable: Bool { communicators.allSatisfy(\.isUsable) }

    public func queue(_ step: GatherExchangeStep) throws(DeviceError) {
        let share = step.shares[step.index]
        if let owner = step.owner, step.index < communicators.count {
            try communicators[step.index].broadcast(
                [(step.rings[step.index] + share.lowerBound, share.count, owner)],
                on: step.stream)
        }
        try peers.queue(step)
    }

    public func cancel() { for communicator in communicators { communicator.abort() } }
}
