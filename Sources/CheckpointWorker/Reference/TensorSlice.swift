public import CheckpointModel

/// The part of a tensor that one rank of a tensor-parallel group holds: `rowCount` runs of
/// `rowByteCount` bytes, `rowStride` bytes apart, from `offset` on in the dense tensor. Packed, the
/// runs follow one another.
///
/// The rule is that of common engines: matrices whose inputs are split (`o_proj`, `down_proj`, `w2`) are cut in
/// their second dimension, all others in their first; what does not divide evenly is held whole.
public struct TensorSlice: Hashable, Sendable {
    public let offset: Int
    public let rowCount: Int
    public let rowByteCount: Int
    public let rowStride: Int

    public var byteCount: Int { rowCount * rowByteCount }

    private static let rowParallel = ["o_proj.weight", "down_proj.weight", "w2.weight"]

    /// The slice of rank `rank` of `worldSize`.
    public init(_ tensor: TensorEntry, rank: Int, worldSize: Int) {
        let whole = tensor.range.byteCount
        let dimensions = tensor.shape.dimensions
        let isRowParallel = Self.rowParallel.contains { tensor.name.endsExactly(with: $0) }
        if isRowParallel, dimensions.count == 2, dimensions[0] > 0, whole > 0,
            dimensions[1] % worldSize == 0, whole / dimensions[0] % worldSize == 0
        {
            let stride = whole / dimensions[0]
            self.init(
                offset: stride / worldSize * rank, rowCount: dimensions[0],
                rowByteCount: stride / worldSize, rowStride: stride)
        } else if let first = dimensions.first, first % worldSize == 0, whole % worldSize == 0 {
            let part = whole / worldSize
            self.init(offset: part * rank, rowCount: 1, rowByteCount: part, rowStride: part)
        } else {
            self.init(offset: 0, rowCount: 1, rowByteCount: whole, rowStride: whole)
        }
    }

    init(offset: Int, rowCount: Int, rowByteCount: Int, rowStride: Int) {
        self.offset = offset
        self.rowCount = rowCount
        self.rowByteCount = rowByteCount
        self.rowStride = rowStride
    }
}
