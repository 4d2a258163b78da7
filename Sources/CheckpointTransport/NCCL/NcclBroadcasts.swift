public import CheckpointDevice
import CheckpointNative
import Synchronization

/// NCCL between the GPUs of one host: every GPU broadcasts its share to the others, in place.
public final class NcclBroadcasts: GatherExchange {
    private let communicators: [NcclCommunicator]

    /// Joins `gpus` to one group.
    public init(_ gpus: [GPU], table: NcclTable, deadline: ContinuousClock.Instant)
        throws(DeviceError)
    {
        let id = try table.makeID()
        communicators = try NcclGroup.join(count: gpus.count) {
            index, isCancelled throws(DeviceError) in
            try NcclCommunicator(
                table: table, gpu: gpus[index], id: id, rank: index, count: gpus.count,
                deadline: deadline, isCancelled: isCancelled)
        }
    }

    /// Whether nobody has left the group.
    var isUsable: Bool { communicators.allSatisfy(\.isUsable) }

    public func queue(_ step: GatherExchangeStep) throws(DeviceError) {
        try communicators[step.index].broadcast(
            step.shares.enumerated().map { root, share in
                (step.rings[step.index] + share.lowerBound, share.count, root)
            }, on: step.stream)
    }

    public func cancel() { for communicator in communicators { communicator.abort() } }
}

/// Joins several GPUs of this process, each on a thread: a join returns when all have joined.
enum NcclGroup {
    static func join(
        count: Int,
        make: @escaping @Sendable (Int, () -> Bool) throws(DeviceError) -> NcclCommunicator
    ) throws(DeviceError) -> [NcclCommunicator] {
        let made = Mutex<[Int: NcclCommunicator]>([:])
        let failure = Mutex<DeviceError?>(nil)
        do throws(SystemShortage) {
            try BlockingThread.runTogether("ckpt-nccl", count: count) { index in
                do throws(DeviceError) {
                    let communicator = try make(index) { failure.withLock { $0 != nil } }
                    made.withLock { $0[index] = communicator }
                } catch {
                    failure.withLock { $0 = $0 ?? error }
                }
            }
        } catch {
            throw DeviceError(error)
        }
        if let failure = failure.withLock({ $0 }) { throw failure }
        return made.withLock { made in (0..<count).compactMap { made[$0] } }
    }
}
