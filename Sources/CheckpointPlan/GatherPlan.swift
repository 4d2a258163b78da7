public import CheckpointModel

/// A delivery through a ring of device memory: which tensors share a bucket, where each lies in the
/// ring, and where its bytes come from. Immutable and pure.
public struct GatherPlan: Hashable, Sendable {
    /// Tensors that are copied, exchanged and loaded together.
    public struct Bucket: Hashable, Sendable {
        /// The tensors `first ..< first + count` of the catalog.
        public let first: Int
        public let count: Int
        /// Bytes of the tensors.
        public let byteCount: Int
        /// Where it begins in the ring.
        public let ringOffset: Int
        /// Bytes of the ring that it takes, gaps between tensors included.
        public let spanByteCount: Int
        /// The host that alone has the bytes; `nil` when every host has them.
        public let owner: Int?
        /// How many buckets have to be done with before its place is free.
        public let doneCountNeeded: Int
        /// Its place in ``GatherPlan/runs``.
        let runs: Range<Int>
    }

    /// Bytes that follow one another both in a shard's data section and in the ring.
    public struct Run: Hashable, Sendable {
        public let shard: Int
        public let sourceOffset: Int
        public let ringOffset: Int
        public let byteCount: Int
    }

    /// Tensors begin at multiples of this: what kernels expect of an allocation.
    public static let tensorAlignment = 256
    /// Shares of GPUs begin at multiples of this.
    static let shareAlignment = 4096

    public let budget: RingBudget
    public let buckets: [Bucket]
    /// Where each tensor of the catalog begins in the ring.
    public let offsets: [Int]
    let runs: [Run]

    /// Equal on all hosts that have made the same plan: FNV-1a, 64 bits, over names, types, shapes, owners and
    /// places of all tensors and over the borders of buckets.
    public let digest: UInt64

    /// Plans the delivery of `catalog`, whose order is that of delivery, in a ring of `budget`, which is at
    /// least as large as the largest tensor.
    public init(catalog: Catalog, budget: RingBudget) {
        self.init(
            union: HostUnion(catalog: catalog), budget: budget)
    }

    /// Plans the delivery of what several hosts have together, as one of them sees it: only its own bytes
    /// have runs.
    public init(union: HostUnion, budget: RingBudget) {
        self.budget = budget
        var builder = Builder(budget: budget)
        for (tensor, place) in zip(union.tensors, union.places) {
            builder.add(tensor, owner: place.owner, isLocal: place.isLocal)
        }
        builder.closeBucket()
        digest = Self.digest(union, builder)
        buckets = builder.buckets
        offsets = builder.offsets
        runs = builder.runs
    }

    /// The bytes of the ring that GPU `index` of `count` fetches for a bucket.
    public func share(_ index: Int, of count: Int, in bucket: Int) -> Range<Int> {
        let start = buckets[bucket].ringOffset
        let span = buckets[bucket].spanByteCount
        let part = (span + count - 1) / count
        let length = (part + Self.shareAlignment - 1) / Self.shareAlignment * Self.shareAlignment
        return start + min(span, index * length)..<start + min(span, (index + 1) * length)
    }

    /// The runs of a bucket, cut to `range` of the ring.
    public func pieces(of bucket: Int, in range: Range<Int>) -> [Run] {
        let all = runs[buckets[bucket].runs]
        var index = Self.firstIndex(in: all, endingAfter: range.lowerBound)
        var pieces: [Run] = []
        while index < all.endIndex, all[index].ringOffset < range.upperBound {
            let run = all[index]
            let start = max(run.ringOffset, range.lowerBound)
            let end = min(run.ringOffset + run.byteCount, range.upperBound)
            pieces.append(
                Run(
                    shard: run.shard, sourceOffset: run.sourceOffset + start - run.ringOffset,
                    ringOffset: start, byteCount: end - start))
            index += 1
        }
        return pieces
    }

    /// The runs of a bucket do not overlap and are in the order of the ring.
    private static func firstIndex(in runs: ArraySlice<Run>, endingAfter offset: Int) -> Int {
        var low = runs.startIndex
        var high = runs.endIndex
        while low < high {
            let middle = (low + high) / 2
            if runs[middle].ringOffset + runs[middle].byteCount <= offset {
                low = middle + 1
            } else {
                high = middle
            }
        }
        return low
    }
}

extension GatherPlan {
    /// Fills buckets tensor by tensor, and the ring bucket by bucket.
    private struct Builder {
        let budget: RingBudget
        var buckets: [Bucket] = []
        var offsets: [Int] = []
        var runs: [Run] = []
        private var first = 0
        private var firstRun = 0
        private var byteCount = 0
        private var owner: Int?
        /// Where the open bucket begins, and where it ends so far.
        private var start = 0
        private var end = 0

        init(budget: RingBudget) { self.budget = budget }

        mutating func add(_ tensor: TensorEntry, owner: Int?, isLocal: Bool) {
            if owner != self.owner { closeBucket() }
            self.owner = owner
            let count = tensor.range.byteCount
            var offset = Self.aligned(end)
            if offsets.count > first,
                offset + count > min(start + budget.bucketByteCount, budget.byteCount)
            {
                closeBucket()
                offset = start
            }
            if offset + count > budget.byteCount {
                precondition(offsets.count == first, "an open bucket was closed above")
                start = 0
                offset = 0
            }
            precondition(count <= budget.byteCount, "the ring has room for the largest tensor")
            offsets.append(offset)
            byteCount += count
            end = offset + count
            if isLocal { append(tensor, at: offset) }
        }

        private mutating func append(_ tensor: TensorEntry, at offset: Int) {
            guard tensor.range.byteCount > 0 else { return }
            let run = Run(
                shard: tensor.shard, sourceOffset: tensor.range.offset, ringOffset: offset,
                byteCount: tensor.range.byteCount)
            if runs.count > firstRun, let merged = Self.merged(runs[runs.count - 1], run) {
                runs[runs.count - 1] = merged
            } else {
                runs.append(run)
            }
        }

        mutating func closeBucket() {
            guard offsets.count > first else { return }
            buckets.append(
                Bucket(
                    first: first, count: offsets.count - first, byteCount: byteCount,
                    ringOffset: start, spanByteCount: end - start, owner: owner,
                    doneCountNeeded: lastOverlapping(start..<end).map { $0 + 1 } ?? 0,
                    runs: firstRun..<runs.count))
            first = offsets.count
            firstRun = runs.count
            byteCount = 0
            start = Self.aligned(end)
            if start >= budget.byteCount { start = 0 }
            end = start
        }

        /// The latest bucket that lies where `range` is.
        private func lastOverlapping(_ range: Range<Int>) -> Int? {
            buckets.lastIndex { bucket in
                (bucket.ringOffset..<(bucket.ringOffset + bucket.spanByteCount)).overlaps(range)
            }
        }

        private static func aligned(_ offset: Int) -> Int {
            let alignment = GatherPlan.tensorAlignment
            return (offset + alignment - 1) / alignment * alignment
        }

        /// Both as one where they are adjacent on both sides. A gap of alignment ends a run.
        private static func merged(_ left: Run, _ right: Run) -> Run? {
            guard left.shard == right.shard,
                left.sourceOffset + left.byteCount == right.sourceOffset,
                left.ringOffset + left.byteCount == right.ringOffset
            else { return nil }
            return Run(
                shard: left.shard, sourceOffset: left.sourceOffset, ringOffset: left.ringOffset,
                byteCount: left.byteCount + right.byteCount)
        }
    }
}

extension GatherPlan {
    private static func digest(_ union: HostUnion, _ builder: Builder) -> UInt64 {
        var digest = FNV1a()
        for (index, tensor) in union.tensors.enumerated() {
            digest.combine(tensor.name)
            digest.combine(tensor.dtype.rawValue)
            for dimension in tensor.shape.dimensions { digest.combine(dimension) }
            digest.combine(union.places[index].owner ?? -1)
            digest.combine(builder.offsets[index])
        }
        for bucket in builder.buckets { digest.combine(bucket.count) }
        return digest.value
    }
}
