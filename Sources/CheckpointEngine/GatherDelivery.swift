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

    /// Takes rings on `gpus` for `registered`. Throws `insufficientMemory` with the numbers when not even the
    /// largest tensor fits.
    init(
        _ registered: RegisteredCheckpoint, gpus: [GPU], slotByteCountMax: Int,
        makeExchange: ([GPU]) throws(DeviceError) -> any GatherExchange
    ) throws(DeviceError) {
        let budget = try Self.budget(registered, gpus, slotByteCountMax)
        self.gpus = gpus
        plan = registered.plans.gather(registered.catalog, budget)
        exchange = try makeExchange(gpus)
        rings = try gpus.map { gpu throws(DeviceError) in
            try gpu.ring(byteCount: budget.byteCount)
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
            gpus: gpus, plan: plan.plan, sources: sources, rings: rings, exchange: exchange)
    }

    private static func budget(
        _ registered: RegisteredCheckpoint, _ gpus: [GPU], _ slotByteCountMax: Int
    ) throws(DeviceError) -> RingBudget {
        var tightest: (gpu: GPU, free: Int)?
        for gpu in gpus {
            let free = try gpu.availableByteCount()
            if free < tightest?.free ?? .max { tightest = (gpu, free) }
        }
        do throws(RingBudget.Shortage) {
            return try RingBudget(
                byteCount: registered.catalog.byteCount,
                largestByteCount: registered.largestTensor?.range.byteCount ?? 0,
                slotByteCountMax: slotByteCountMax, freeByteCount: tightest?.free ?? 0)
        } catch {
            throw DeviceError(
                .insufficientMemory,
                "\(tightest?.gpu.device.description ?? "the GPU") has \(error.freeByteCount) bytes "
                    + "free; the largest tensor, \(registered.largestTensor?.name ?? "none"), needs "
                    + "\(error.neededByteCount) bytes beside "
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

    init(_ catalog: Catalog, _ budget: RingBudget) {
        let plan = GatherPlan(catalog: catalog, budget: budget)
        var tensors: [TensorEntry] = []
        tensors.reserveCapacity(catalog.tensors.count)
        for (tensor, offset) in zip(catalog.tensors, plan.offsets) {
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
            }, availableCount: 0)
    }
}
