import CheckpointDevice
import CheckpointModel
import CheckpointNative
import CheckpointPlan
import CheckpointTransport
import CheckpointWorker

/// A delivery through device memory, prepared: the rings are taken and the plan is made.
struct GatherDelivery: Sendable {
    /// One for each worker, in the order of the endpoints.
    let gpus: [GPU]
    let plan: PlannedGather
    let rings: [DeviceMemory]
    let exchange: any GatherExchange
    let sources: [(file: PinnedFile, dataOffset: Int)]
    let host: Int
    let railCount: Int

    /// Takes rings on `gpus` for the bytes of `registered`.
    init(
        _ registered: RegisteredCheckpoint, gpus: [GPU], plan: PlannedGather,
        exchange: any GatherExchange, host: Int = 0, railCount: Int = 0
    ) throws(DeviceError) {
        self.gpus = gpus
        self.plan = plan
        self.exchange = exchange
        self.host = host
        self.railCount = railCount
        rings = try gpus.map { gpu throws(DeviceError) in
            try gpu.ring(byteCount: plan.plan.budget.byteCount)
        }
        sources = zip(registered.pins, registered.locations).map { ($0, $1.dataOffset) }
    }

    /// What every worker is told of its memory.
    var workerRings: [WorkerRing] {
        rings.map { WorkerRing(handle: $0.handle, byteCount: $0.byteCount) }
    }

    /// What the copies need to know.
    var job: GatherRun.Job {
        GatherRun.Job(
            gpus: gpus, plan: plan.plan, sources: sources, rings: rings, exchange: exchange,
            host: host, railCount: railCount)
    }

    /// The GPU with the least memory that is free or held, and how much that is.
    static func tightest(_ gpus: [GPU]) throws(DeviceError) -> (name: String, byteCount: Int) {
        var tightest = (name: "the GPU", byteCount: Int.max)
        for gpu in gpus {
            let free = try gpu.availableByteCount()
            if free < tightest.byteCount { tightest = (gpu.device.description, free) }
        }
        return tightest
    }

    /// The ring for `tensors`. Throws `insufficientMemory` with the numbers when not even the largest tensor
    /// fits.
    static func budget(
        _ tensors: [TensorEntry], tightest: (name: String, byteCount: Int),
        slotByteCountMax: Int
    ) throws(DeviceError) -> RingBudget {
        let largest = tensors.max { $0.range.byteCount < $1.range.byteCount }
        do throws(RingBudget.Shortage) {
            return try RingBudget(
                byteCount: tensors.reduce(0) { $0 + $1.range.byteCount },
                largestByteCount: largest?.range.byteCount ?? 0,
                slotByteCountMax: slotByteCountMax, freeByteCount: tightest.byteCount)
        } catch {
            throw DeviceError(
                .insufficientMemory,
                "\(tightest.name) has \(error.freeByteCount) bytes free; the largest tensor, "
                    + "\(largest?.name ?? "none"), needs \(error.neededByteCount) bytes beside "
                    + "\(RingBudget.headroomByteCount) that stay free: lower the engine's share of "
                    + "the memory")
        }
    }
}

/// A plan with the catalog that workers are sent: offsets in the ring instead of files.
struct PlannedGather: Sendable {
    let plan: GatherPlan
    let tensors: [TensorEntry]
    /// The tensors as every worker is sent them.
    let catalogBody: [UInt8]
    let schedule: DeliverySchedule

    init(_ union: HostUnion, _ budget: RingBudget, gates: Set<SessionStage> = []) {
        let plan = GatherPlan(union: union, budget: budget)
        var tensors: [TensorEntry] = []
        tensors.reserveCapacity(union.tensors.count)
        for (tensor, offset) in zip(union.tensors, plan.offsets) {
            guard let range = ByteRange(offset: offset, byteCount: tensor.range.byteCount) else {
                preconditionFailure("offsets in a ring are small and not negative")
            }
            tensors.append(
                TensorEntry(
                    name: tensor.name, dtype: tensor.dtype, shape: tensor.shape, shard: 0,
                    range: range))
        }
        self.plan = plan
        self.tensors = tensors
        catalogBody = CatalogMessage.body(tensors)
        schedule = DeliverySchedule(
            buckets: plan.buckets.map { bucket in
                DeliverySchedule.Bucket(
                    first: bucket.first, count: bucket.count, byteCount: bucket.byteCount)
            }, availableCount: 0, gates: gates)
    }
}
