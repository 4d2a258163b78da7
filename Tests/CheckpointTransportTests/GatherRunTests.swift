import CheckpointDevice
import CheckpointModel
import CheckpointNative
import CheckpointPlan
import CheckpointTesting
import CheckpointTransport
import Glibc
import Synchronization
import Testing

/// Whole deliveries on simulated GPUs, whose streams run on threads of their own.
@Suite(.serialized)
struct GatherRunTests {
    private struct Delivery {
        let set: GPUSet
        let catalog: Catalog
        let plan: GatherPlan
        let bytes: [[UInt8]]
        let run: GatherRun
        let rings: [DeviceMemory]
        let available: BlockingState<Int>
    }

    private let directory: TemporaryDirectory
    private var generator: SeededGenerator

    init() throws {
        directory = try TemporaryDirectory()
        generator = SeededGenerator(seed: .random(in: 0 ... .max))
    }

    private mutating func delivery(
        slotByteCount: Int, slotCount: Int, tensorCount: Int = 200, arrivedCount: Int = .max
    ) throws -> Delivery {
        let set = try SimulatedGPUs.set()
        let catalog = RandomCatalog.make(
            tensorCount: tensorCount, shardCount: 3, using: &generator)
        var bytes: [[UInt8]] = []
        var locations: [SegmentLocation] = []
        for (index, shard) in catalog.shards.enumerated() {
            let content = (0..<(shard.byteCount + 8)).map { _ in
                UInt8.random(in: 0...255, using: &generator)
            }
            let path = try directory.write(content, to: "shard-\(index)")
            var status = stat()
            try #require(unsafe stat(path, &status) == 0)
            bytes.append(content)
            locations.append(
                SegmentLocation(
                    path: path, inode: UInt64(status.st_ino), fileByteCount: content.count,
                    dataOffset: 8))
        }
        let largest = catalog.tensors.map(\.range.byteCount).max() ?? 0
        let budget = try RingBudget(
            byteCount: catalog.byteCount, largestByteCount: largest,
            slotByteCountMax: slotByteCount,
            freeByteCount: slotCount == 2
                ? 1 << 30 : RingBudget.headroomByteCount + largest + (128 << 10))
        let plan = GatherPlan(catalog: catalog, budget: budget)
        let pins = try set.pinned.pin(locations)
        let rings = try set.gpus.map { try $0.ring(byteCount: budget.byteCount) }
        let available = BlockingState(0)
        let run = try GatherRun(
            GatherRun.Job(
                gpus: set.gpus, plan: plan, sources: pins.map { ($0, 8) }, rings: rings,
                exchange: try PeerCopies(set.gpus)), arrivedCount: arrivedCount
        ) { count in available.update { $0 = count } }
        return Delivery(
            set: set, catalog: catalog, plan: plan, bytes: bytes, run: run, rings: rings,
            available: available)
    }

    /// What lies in the ring of one GPU.
    private func ring(_ gpu: Int, _ delivery: Delivery) throws -> [UInt8] {
        let stream = try CudaStream(delivery.set.gpus[gpu].context)
        try stream.bindThread()
        let size = delivery.plan.budget.byteCount
        var content = [UInt8](repeating: 0, count: size)
        let source = delivery.rings[gpu].address
        try unsafe content.withUnsafeMutableBytes { buffer in
            let target = try unsafe #require(buffer.baseAddress)
            try unsafe stream.copy(from: source, toHost: target, byteCount: size)
            try stream.synchronize()
        }
        return content
    }

    /// One exchange for each GPU and bucket, and one copy for each that has a share: a small bucket has
    /// none for the last GPU.
    private func spanCount(_ delivery: Delivery) -> Int {
        let gpuCount = delivery.set.gpus.count
        return delivery.plan.buckets.indices.reduce(0) { sum, bucket in
            let shares = (0..<gpuCount).count {
                !delivery.plan.share($0, of: gpuCount, in: bucket).isEmpty
            }
            return sum + gpuCount + shares
        }
    }

    @Test(arguments: [(4096, 2), (1 << 20, 2), (1, 1)])
    mutating func everyByteReachesEveryGPU(_ slotByteCount: Int, _ slotCount: Int) async throws {
        let delivery = try delivery(slotByteCount: slotByteCount, slotCount: slotCount)
        let run = delivery.run
        async let ended: Void = BlockingThread.run("run") { () throws(DeviceError) in
            try run.run()
        }
        for (index, bucket) in delivery.plan.buckets.enumerated() {
            let available = delivery.available
            let _: Bool = await BlockingThread.run("wait") {
                available.wait { $0 > index ? true : nil }
            }
            for gpu in delivery.set.gpus.indices {
                let ring = try ring(gpu, delivery)
                for place in bucket.first..<(bucket.first + bucket.count) {
                    let tensor = delivery.catalog.tensors[place]
                    let offset = delivery.plan.offsets[place]
                    let start = 8 + tensor.range.offset
                    #expect(
                        ring[offset..<(offset + tensor.range.byteCount)]
                            == delivery.bytes[tensor.shard][
                                start..<(start + tensor.range.byteCount)])
                }
            }
            run.release(index + 1)
        }
        try await ended
        #expect(run.spans().count == spanCount(delivery))
        delivery.set.releaseMemory()
        #expect(delivery.set.heldByteCount == 0)
    }

    @Test mutating func aCancelledRunReturns() async throws {
        let delivery = try delivery(slotByteCount: 4096, slotCount: 2)
        let run = delivery.run
        async let ended: Void = BlockingThread.run("run") { () throws(DeviceError) in
            try run.run()
        }
        let available = delivery.available
        let _: Bool = await BlockingThread.run("wait") { available.wait { $0 >= 1 ? true : nil } }
        run.cancel()
        try await ended
        // A ring has room for as many buckets as need none to be done with.
        let room = delivery.plan.buckets.count { $0.doneCountNeeded == 0 }
        #expect(delivery.available.update { $0 } <= room)
    }

    /// The host's memory is wrong until a bucket arrives: whatever is staged before it is noticed.
    @Test mutating func nothingIsStagedBeforeItArrives() async throws {
        let delivery = try delivery(
            slotByteCount: 4096, slotCount: 2, tensorCount: 1500, arrivedCount: 0)
        let run = delivery.run
        try #require(delivery.plan.buckets.count > 3)
        for (shard, bytes) in delivery.bytes.enumerated() {
            try overwrite(shard, from: 8, with: [UInt8](repeating: 0x5a, count: bytes.count - 8))
        }
        async let ended: Void = BlockingThread.run("run") { () throws(DeviceError) in
            try run.run()
        }
        for (index, bucket) in delivery.plan.buckets.enumerated() {
            try await Task.sleep(for: .milliseconds(index < 3 ? 30 : 1))
            #expect(delivery.available.update { $0 } == index)
            for place in bucket.first..<(bucket.first + bucket.count) {
                let range = delivery.catalog.tensors[place].range
                let shard = delivery.catalog.tensors[place].shard
                let bytes = delivery.bytes[shard][(8 + range.offset)..<(8 + range.end)]
                try overwrite(shard, from: 8 + range.offset, with: Array(bytes))
            }
            run.arrive(index + 1)
            // What was told before, and less than that, changes nothing.
            run.arrive(index)
            run.arrive(0)
            let available = delivery.available
            let _: Bool = await BlockingThread.run("wait") {
                available.wait { $0 > index ? true : nil }
            }
            for gpu in delivery.set.gpus.indices {
                let ring = try ring(gpu, delivery)
                for place in bucket.first..<(bucket.first + bucket.count) {
                    let tensor = delivery.catalog.tensors[place]
                    let offset = delivery.plan.offsets[place]
                    #expect(
                        ring[offset..<(offset + tensor.range.byteCount)]
                            == delivery.bytes[tensor.shard][
                                (8 + tensor.range.offset)..<(8 + tensor.range.end)])
                }
            }
            run.release(index + 1)
        }
        try await ended
    }

    private func overwrite(_ shard: Int, from offset: Int, with bytes: [UInt8]) throws {
        let descriptor = unsafe open("\(directory.path)/shard-\(shard)", O_WRONLY)
        try #require(descriptor >= 0)
        defer { close(descriptor) }
        // SAFETY: the count is that of `bytes`.
        try #require(unsafe pwrite(descriptor, bytes, bytes.count, offset) == bytes.count)
    }

    @Test mutating func arrivalsMayRunAhead() async throws {
        let delivery = try delivery(
            slotByteCount: 4096, slotCount: 2, tensorCount: 1500, arrivedCount: 1)
        let run = delivery.run
        run.arrive(delivery.plan.buckets.count)
        run.release(delivery.plan.buckets.count)
        try await BlockingThread.run("run") { () throws(DeviceError) in try run.run() }
        #expect(delivery.available.update { $0 } == delivery.plan.buckets.count)
    }

    @Test(arguments: [0, 1]) mutating func aRunThatWaitsForArrivalsIsCancelled(_ count: Int)
        async throws
    {
        let delivery = try delivery(
            slotByteCount: 4096, slotCount: 2, tensorCount: 1500, arrivedCount: count)
        let run = delivery.run
        async let ended: Void = BlockingThread.run("run") { () throws(DeviceError) in
            try run.run()
        }
        try await Task.sleep(for: .milliseconds(50))
        run.cancel()
        run.arrive(.max)
        try await ended
        #expect(delivery.available.update { $0 } <= count)
    }

    /// However an update ends, the next one gets its GPUs.
    @Test func gpusAreTakenOnceAndGivenBack() async throws {
        let set = try SimulatedGPUs.set()
        for indices in [[0], [0, 1]] {
            await #expect(throws: CancellationError.self) {
                try await set.withTaken(indices, releasesMemory: false) {
                    throw CancellationError()
                }
            }
        }
        let value = try await set.withTaken([0], releasesMemory: true) {
            for (indices, words) in [([1, 0], "in use"), ([2], "no GPU 2")] {
                let refusal = await #expect(throws: GPUSet.Refusal.self) {
                    try await set.withTaken(indices, releasesMemory: false) {}
                }
                #expect(refusal?.message.contains(words) == true)
            }
            return try await set.withTaken([1], releasesMemory: false) { 7 }
        }
        #expect(value == 7)
        try await set.withTaken([0, 1], releasesMemory: false) {}
    }
}
