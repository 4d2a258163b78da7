public import CheckpointModel

/// A delivery in chunks of tensors that lie back to back, as receivers of vLLM's packed weight transfer cut
/// them out. Immutable and pure.
///
/// The receiver is told names, types and shapes in ``order`` and draws the borders itself: a chunk ends
/// with the tensor that makes it larger than the limit. It views each tensor in place, so every tensor has
/// to begin at a multiple of its element size: tensors with larger elements come first, and those with
/// elements of one size in the order of their modules. Source: `vllm/distributed/weight_transfer`.
public struct PackedPlan: Hashable, Sendable {
    /// Tensors that are sent together.
    public struct Chunk: Hashable, Sendable {
        /// The tensors `first ..< first + count` of ``PackedPlan/order``.
        public let first: Int
        public let count: Int
        public let byteCount: Int
        /// Its place in the plan's pieces.
        let pieces: Range<Int>
    }

    /// Bytes that follow one another both in a shard's data section and in the chunk.
    public struct Piece: Hashable, Sendable {
        public let shard: Int
        public let sourceOffset: Int
        /// From the start of the chunk.
        public let offset: Int
        public let byteCount: Int
    }

    /// A type whose elements are not whole bytes has no place in the protocol.
    public struct UnsupportedTensor: Error, Hashable {
        public let name: String
        public let dtype: DType
    }

    /// The order of delivery, as places in ``Catalog/tensors``: each place once.
    public let order: [Int]
    public let chunks: [Chunk]
    private let pieces: [Piece]
    /// Bytes of the largest chunk.
    public var chunkByteCountMax: Int { chunks.map(\.byteCount).max() ?? 0 }

    /// Plans the delivery of `catalog`, whose order is that of its modules, to receivers that end a chunk when
    /// it has more than `chunkByteCount` bytes.
    public init(catalog: Catalog, chunkByteCount: Int) throws(UnsupportedTensor) {
        for tensor in catalog.tensors where tensor.dtype.bitWidth % 8 != 0 {
            throw UnsupportedTensor(name: tensor.name, dtype: tensor.dtype)
        }
        let widths = Set(catalog.tensors.map(\.dtype.bitWidth)).sorted(by: >)
        order = widths.flatMap { width in
            catalog.tensors.indices.filter { catalog.tensors[$0].dtype.bitWidth == width }
        }
        var builder = Builder(limit: chunkByteCount)
        for place in order { builder.add(catalog.tensors[place]) }
        builder.close()
        chunks = builder.chunks
        pieces = builder.pieces
    }

    /// Where the bytes of a chunk come from, in its order.
    public func pieces(of chunk: Int) -> ArraySlice<Piece> { pieces[chunks[chunk].pieces] }
}

extension PackedPlan {
    private struct Builder {
        let limit: Int
        var chunks: [Chunk] = []
        var pieces: [Piece] = []
        private var first = 0
        private var count = 0
        private var firstPiece = 0
        private var byteCount = 0

        init(limit: Int) { self.limit = limit }

        mutating func add(_ tensor: TensorEntry) {
            append(
                Piece(
                    shard: tensor.shard, sourceOffset: tensor.range.offset, offset: byteCount,
                    byteCount: tensor.range.byteCount))
            count += 1
            byteCount += tensor.range.byteCount
            if byteCount > limit { close() }
        }

        mutating func close() {
            guard count > 0 else { return }
            chunks.append(
                Chunk(
                    first: first, count: count, byteCount: byteCount,
                    pieces: firstPiece..<pieces.count))
            first += count
            firstPiece = pieces.count
            count = 0
            byteCount = 0
        }

        /// Joins the piece with the one before where both sides follow one another.
        private mutating func append(_ piece: Piece) {
            guard piece.byteCount > 0 else { return }
            guard pieces.count > firstPiece, let last = pieces.last, last.shard == piece.shard,
                last.sourceOffset + last.byteCount == piece.sourceOffset
            else { return pieces.append(piece) }
            pieces[pieces.count - 1] = Piece(
                shard: last.shard, sourceOffset: last.sourceOffset, offset: last.offset,
                byteCount: last.byteCount + piece.byteCount)
        }
    }
}
