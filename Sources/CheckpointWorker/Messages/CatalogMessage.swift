public import CheckpointModel

/// Everything that will be delivered: tensors in the order in which buckets name them. The shard of a
/// tensor is its place among the memory's segments.
public struct CatalogMessage: Hashable, Sendable {
    /// What the tensors lie in; all segments are of one kind.
    public enum Memory: Hashable, Sendable {
        case host([SegmentLocation])
        case cuda([DeviceSegment])

        public var kind: MemoryKind {
            switch self {
            case .host: .host
            case .cuda: .cuda
            }
        }

        /// How many bytes each segment has after its data offset.
        var rooms: [Int] {
            switch self {
            case .host(let segments): segments.map { $0.fileByteCount - $0.dataOffset }
            case .cuda(let segments): segments.map { $0.byteCount - $0.dataOffset }
            }
        }
    }

    public let memory: Memory
    public let tensors: [TensorEntry]

    public init(memory: Memory, tensors: [TensorEntry]) {
        self.memory = memory
        self.tensors = tensors
    }

    /// A catalog in host memory.
    public init(segments: [SegmentLocation], tensors: [TensorEntry]) {
        self.init(memory: .host(segments), tensors: tensors)
    }

    /// The segments of host memory; none in device memory.
    public var segments: [SegmentLocation] {
        if case .host(let segments) = memory { segments } else { [] }
    }

    public var byteCount: Int { tensors.reduce(0) { $0 + $1.range.byteCount } }
}

/// The kinds of memory that a server offers.
public enum MemoryKind: String, Hashable, Sendable, CaseIterable {
    /// Files of shared memory.
    case host
    /// Memory of a GPU.
    case cuda
}
