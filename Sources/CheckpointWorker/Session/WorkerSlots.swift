public import CheckpointModel

/// The slots of device memory that one worker reads.
public struct WorkerSlots: Hashable, Sendable {
    /// A CUDA IPC memory handle of the worker's GPU, 64 bytes.
    public let handle: [UInt8]
    /// Bytes of the whole allocation.
    public let byteCount: Int
    /// One after the other from the start of the allocation; bucket `k` lies in slot `k % slotCount`.
    public let slotByteCount: Int
    public let slotCount: Int

    public init(handle: [UInt8], byteCount: Int, slotByteCount: Int, slotCount: Int) {
        self.handle = handle
        self.byteCount = byteCount
        self.slotByteCount = slotByteCount
        self.slotCount = slotCount
    }

    var segments: [DeviceSegment] {
        (0..<slotCount).map { index in
            DeviceSegment(
                handle: handle, byteCount: byteCount, dataOffset: index * slotByteCount)
        }
    }
}

/// Where the bytes of an update lie for its workers.
public enum WorkerMemory: Sendable {
    /// In shared files, the same for all.
    case host([SegmentLocation])
    /// In slots, one set for each endpoint.
    case cuda([WorkerSlots])

    var kind: MemoryKind {
        switch self {
        case .host: .host
        case .cuda: .cuda
        }
    }

    /// What the catalog of one worker names.
    func catalog(for worker: Int) -> CatalogMessage.Memory {
        switch self {
        case .host(let segments): .host(segments)
        case .cuda(let slots): .cuda(slots[worker].segments)
        }
    }
}
