public import CheckpointModel

/// Where a reference worker keeps its slice of every tensor: one after the other.
public struct ReferenceLayout: Hashable, Sendable {
    public let tensors: [TensorEntry]
    public let slices: [TensorSlice]
    /// Where each packed slice begins.
    public let offsets: [Int]
    /// Bytes of all slices and of the gaps between them.
    public let byteCount: Int

    /// The slices of rank `rank` of `worldSize`, each at a multiple of `alignment`.
    public init(_ tensors: [TensorEntry], rank: Int, worldSize: Int, alignment: Int = 1) {
        self.tensors = tensors
        slices = tensors.map { TensorSlice($0, rank: rank, worldSize: worldSize) }
        var end = 0
        offsets = slices.map { slice in
            let offset = (end + alignment - 1) / alignment * alignment
            end = offset + slice.byteCount
            return offset
        }
        byteCount = end
    }

    /// Throws unless `range` names tensors of the catalog.
    public func check(_ range: Range<Int>) throws(WorkerError) {
        guard range.lowerBound >= 0, range.upperBound <= tensors.count else {
            throw WorkerError(
                .protocolViolation,
                "the bucket has the tensors \(range) of a catalog of \(tensors.count)")
        }
    }

    /// Bytes of whole tensors.
    public func byteCount(of range: Range<Int>) -> Int {
        tensors[range].reduce(0) { $0 + $1.range.byteCount }
    }

    /// The first slice that ends behind `offset`.
    func place(at offset: Int) -> Int {
        var range = 0..<offsets.count
        while !range.isEmpty {
            let middle = (range.lowerBound + range.upperBound) / 2
            if offsets[middle] + slices[middle].byteCount > offset {
                range = range.lowerBound..<middle
            } else {
                range = (middle + 1)..<range.upperBound
            }
        }
        return range.lowerBound
    }
}
