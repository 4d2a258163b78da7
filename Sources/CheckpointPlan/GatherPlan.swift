public import CheckpointModel

/// A delivery through slots of device memory: which tensors share a bucket, where each lies in its
/// slot, and where its bytes come from. Immutable and pure.
public struct GatherPlan: Hashable, Sendable {
    /// One filling of a slot.
    public struct Bucket: Hashable, Sendable {
        /// The tensors `first ..< first + count` of the catalog.
        public let first: Int
        public let count: Int
        /// Bytes of the tensors.
        public let byteCount: Int
        /// Bytes of the slot that are filled, gaps between tensors included.
        public let spanByteCount: Int
        /// Its place in ``GatherPlan/runs``.
        let runs: Range<Int>
    }

    /// Bytes that follow one another both in a shard's data section and in the slot.
    public struct Run: Hashable, Sendable {
        public let shard: Int
        public let sourceOffset: Int
        public let slotOffset: Int
        public let byteCount: Int
    }

    /// Tensors begin at multiples of this in their slot: what kernels expect of an allocation.
    public static let tensorAlignment = 256
    /// Shares of GPUs begin at multiples of this.
    static let shareAlignment = 4096

    public let budget: SlotBudget
    public let buckets: [Bucket]
    /// Where each tensor of the catalog begins in its slot.
    public let offsets: [Int]
    let runs: [Run]

    /// Plans the delivery of `catalog`, whose order is that of delivery, in slots of `budget`, which are at
    /// least as large as the largest tensor.
    public init(catalog: Catalog, budget: SlotBudget) {
        self.budget = budget
        var builder = Builder(slotByteCount: budget.slotByteCount)
        for tensor in catalog.tensors { builder.add(tensor) }
        builder.closeBucket()
        buckets = builder.buckets
        offsets = builder.offsets
        runs = builder.runs
    }

    /// The slot that bucket `index` is put into.
    public func slot(of index: Int) -> Int { index % budget.slotCount }

    /// Whether the catalog lets the slots be used in turn: bucket `index` may be staged when so many
    /// buckets are done with.
    public func bucketsDone(before index: Int) -> Int { max(0, index + 1 - budget.slotCount) }

    /// The bytes of the slot that GPU `index` of `count` fetches for a bucket.
    public func share(_ index: Int, of count: Int, in bucket: Int) -> Range<Int> {
        let span = buckets[bucket].spanByteCount
        let part = (span + count - 1) / count
        let length = (part + Self.shareAlignment - 1) / Self.shareAlignment * Self.shareAlignment
        return min(span, index * length)..<min(span, (index + 1) * length)
    }

    /// The runs of a bucket, cut to `range` of the slot.
    public func pieces(of bucket: Int, in range: Range<Int>) -> [Run] {
        let all = runs[buckets[bucket].runs]
        var index = Self.firstIndex(in: all, endingAfter: range.lowerBound)
        var pieces: [Run] = []
        while index < all.endIndex, all[index].slotOffset < range.upperBound {
            let run = all[index]
            let start = max(run.slotOffset, range.lowerBound)
            let end = min(run.slotOffset + run.byteCount, range.upperBound)
            pieces.append(
                Run(
                    shard: run.shard, sourceOffset: run.sourceOffset + start - run.slotOffset,
                    slotOffset: start, byteCount: end - start))
            index += 1
        }
        return pieces
    }

    /// The runs of a bucket do not overlap and are in the order of the slot.
    private static func firstIndex(in runs: ArraySlice<Run>, endingAfter offset: Int) -> Int {
        var low = runs.startIndex
        var high = runs.endIndex
        while low < high {
            let middle = (low + high) / 2
            if runs[middle].slotOffset + runs[middle].byteCount <= offset {
                low = middle + 1
            } else {
                high = middle
            }
        }
        return low
    }
}

extension GatherPlan {
    /// Fills buckets tensor by tensor.
    private struct Builder {
        let slotByteCount: Int
        var buckets: [Bucket] = []
        var offsets: [Int] = []
        var runs: [Run] = []
        private var first = 0
        private var firstRun = 0
        private var byteCount = 0
        private var end = 0

        init(slotByteCount: Int) { self.slotByteCount = slotByteCount }

        mutating func add(_ tensor: TensorEntry) {
            let alignment = GatherPlan.tensorAlignment
            var offset = (end + alignment - 1) / alignment * alignment
            let count = tensor.range.byteCount
            if offsets.count > first, offset + count > slotByteCount {
                closeBucket()
                offset = 0
            }
            precondition(
                offset + count <= slotByteCount, "the budget has room for the largest tensor")
            offsets.append(offset)
            byteCount += count
            end = offset + count
            guard count > 0 else { return }
            let run = Run(
                shard: tensor.shard, sourceOffset: tensor.range.offset, slotOffset: offset,
                byteCount: count)
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
                    spanByteCount: end, runs: firstRun..<runs.count))
            first = offsets.count
            firstRun = runs.count
            byteCount = 0
            end = 0
        }

        /// Both as one where they are adjacent on both sides. A gap of alignment ends a run.
        private static func merged(_ left: Run, _ right: Run) -> Run? {
            guard left.shard == right.shard,
                left.sourceOffset + left.byteCount == right.sourceOffset,
                left.slotOffset + left.byteCount == right.slotOffset
            else { return nil }
            return Run(
                shard: left.shard, sourceOffset: left.sourceOffset, slotOffset: left.slotOffset,
                byteCount: left.byteCount + right.byteCount)
        }
    }
}
