public import CheckpointModel

/// What one update delivers, in which order and in which portions. Immutable, and the same wherever it is
/// made from the same catalog and budget: ``digest`` tells.
public struct UpdatePlan: Hashable, Sendable {
    /// One portion: tensors `first ..< first + count` of ``tensors``.
    public struct Bucket: Hashable, Sendable {
        public let first: Int
        public let count: Int
        public let byteCount: Int

        init(first: Int, count: Int, byteCount: Int) {
            self.first = first
            self.count = count
            self.byteCount = byteCount
        }
    }

    /// The order of delivery, as places in ``Catalog/tensors``: each place once.
    public let order: [Int]
    /// Cover ``order`` without gaps; none is empty.
    public let buckets: [Bucket]
    public let byteCount: Int
    /// FNV-1a, 64 bits, over names, types, shapes, places and bucket borders.
    public let digest: UInt64

    /// Plans the delivery of `catalog` in buckets of at most `bucketByteCountMax` bytes; a tensor
    /// that is larger gets a bucket of its own.
    ///
    /// Tensors of one module follow one another, and modules come in the order of their numbers, since an
    /// engine that post-processes module by module holds memory for each one that has begun.
    public init(catalog: Catalog, bucketByteCountMax: Int) {
        precondition(bucketByteCountMax > 0, "the configuration guarantees a positive bucket size")
        let order = ModuleOrder.sorted(catalog.tensors.map(\.name))
        let buckets = Self.buckets(of: catalog, in: order, byteCountMax: bucketByteCountMax)
        self.order = order
        self.buckets = buckets
        self.byteCount = catalog.byteCount
        self.digest = Self.digest(of: catalog, order: order, buckets: buckets)
    }

    private static func buckets(of catalog: Catalog, in order: [Int], byteCountMax: Int)
        -> [Bucket]
    {
        var buckets: [Bucket] = []
        var first = 0
        var byteCount = 0
        for (position, place) in order.enumerated() {
            let tensorByteCount = catalog.tensors[place].range.byteCount
            if position > first, tensorByteCount > byteCountMax - byteCount {
                buckets.append(
                    Bucket(first: first, count: position - first, byteCount: byteCount))
                first = position
                byteCount = 0
            }
            byteCount += tensorByteCount
        }
        if first < order.count {
            buckets.append(
                Bucket(first: first, count: order.count - first, byteCount: byteCount))
        }
        return buckets
    }

    private static func digest(of catalog: Catalog, order: [Int], buckets: [Bucket]) -> UInt64 {
        var digest = FNV1a()
        for place in order {
            let tensor = catalog.tensors[place]
            digest.combine(tensor.name)
            digest.combine(tensor.dtype.rawValue)
            for dimension in tensor.shape.dimensions { digest.combine(dimension) }
            digest.combine(tensor.shard)
            digest.combine(tensor.range.offset)
        }
        for bucket in buckets { digest.combine(bucket.count) }
        return digest.value
    }
}
