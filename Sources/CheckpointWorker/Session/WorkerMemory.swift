public import CheckpointModel

/// The memory of a GPU that one worker reads.
public struct WorkerRing: Hashable, Sendable {
    /// A CUDA IPC memory handle of the worker's GPU, 64 bytes.
    public let handle: [UInt8]
    /// Bytes of the allocation. Tensors are counted from its start.
    public let byteCount: Int

    public init(handle: [UInt8], byteCount: Int) {
        self.handle = handle
        self.byteCount = byteCount
    }

    var segment: DeviceSegment {
        DeviceSegment(handle: handle, byteCount: byteCount, dataOffset: 0)
    }
}

/// Where the bytes of an update lie for its workers.
public enum WorkerMemory: Sendable {
    /// In shared files, the same for all.
    case host([SegmentLocation])
    /// In rings on GPUs, one for each endpoint.
    case cuda([WorkerRing])

    var kind: MemoryKind {
        switch self {
        case .host: .host
        case .cuda: .cuda
        }
    }

    /// The memory of some of the endpoints.
    func of(_ places: [Int]) -> WorkerMemory {
        switch self {
        case .host: self
        case .cuda(let rings): .cuda(places.map { rings[$0] })
        }
    }

    /// What the catalog of one worker names.
    func catalog(for worker: Int) -> CatalogMessage.Memory {
        switch self {
        case .host(let segments): .host(segments)
        case .cuda(let rings): .cuda([rings[worker].segment])
        }
    }
}
