public import CheckpointDevice
public import CheckpointModel
import Synchronization

/// One GPU of this host with what is kept on it between updates: streams, events and the ring that
/// engine workers read.
///
/// One update uses it at a time; ``GPUSet`` sees to that.
public final class GPU: Sendable {
    private struct Kept {
        var ring: DeviceMemory?
        var events: [CudaEvent] = []
        var peers: Set<Int> = []
    }

    public let context: CudaContext
    /// Copies from the host.
    let stageStream: CudaStream
    /// Copies to the peers.
    let gatherStream: CudaStream
    private let kept = Mutex(Kept())

    public var device: CudaDevice { context.device }
    public var id: DeviceID { context.device.id }

    init(_ device: CudaDevice, table: CudaTable) throws(DeviceError) {
        context = try CudaContext(device, table: table)
        stageStream = try CudaStream(context)
        gatherStream = try CudaStream(context)
    }

    /// Bytes of device memory that are held between updates.
    public var heldByteCount: Int { kept.withLock { $0.ring?.byteCount ?? 0 } }

    /// Free bytes, those that are held for the ring included.
    public func availableByteCount() throws(DeviceError) -> Int {
        try context.memory().free + heldByteCount
    }

    /// Memory of at least `byteCount` bytes for the ring: that of the last update if it has the size.
    public func ring(byteCount: Int) throws(DeviceError) -> DeviceMemory {
        if let ring = kept.withLock({ $0.ring }), ring.byteCount >= byteCount,
            ring.byteCount <= byteCount + DeviceMemory.granularity
        {
            return ring
        }
        kept.withLock { $0.ring = nil }
        let ring = try DeviceMemory(context, byteCount: byteCount)
        kept.withLock { $0.ring = ring }
        return ring
    }

    /// `count` events, those of the last update first.
    func events(_ count: Int) throws(DeviceError) -> [CudaEvent] {
        var events = kept.withLock { $0.events }
        while events.count < count { events.append(try CudaEvent(context)) }
        kept.withLock { $0.events = events }
        return Array(events.prefix(count))
    }

    /// Lets copies go straight to the memory of `peer`.
    func reach(_ peer: GPU) throws(DeviceError) {
        guard !kept.withLock({ $0.peers.contains(peer.device.index) }) else { return }
        guard try context.canAccess(peer.context) else {
            throw DeviceError(
                .deviceFailed,
                "\(device) cannot write to the memory of \(peer.device) directly; use NCCL for the "
                    + "copies between GPUs with --gather-transport nccl")
        }
        try context.enableAccess(to: peer.context)
        kept.withLock { _ = $0.peers.insert(peer.device.index) }
    }

    /// Gives ring and events back.
    func release() {
        let released = kept.withLock { kept in
            defer {
                kept.ring = nil
                kept.events = []
            }
            return kept
        }
        _ = released
    }
}
