import CheckpointDevice
import CheckpointModel
import CheckpointNative
import CheckpointPlan
import CheckpointTransport
import CheckpointWorker

/// A delivery through device memory, prepared: the slots are taken and the plan is made.
struct GatherDelivery: Sendable {
    /// One for each worker, in the order of the endpoints.
    let gpus: [GPU]
    let plan: PlannedGather
    let slots: [DeviceMemory]
    let exchange: any GatherExchange
    let sources: [(file: PinnedFile, dataOffset: Int)]

    /// Takes slots on `gpus` for `registered`. Throws `insufficientMemory` with the numbers when not even one
    /// slot fits.
    init(
        _ registered: RegisteredCheckpoint, gpus: [GPU], slotByteCountMax: Int,
        makeExchange: ([GPU]) throws(DeviceError) -> any GatherExchange
    ) throws(DeviceError) {
        let budget = try Self.budget(registered, gpus, slotByteCountMax)
        self.gpus = gpus
        plan = registered.plans.gather(registered.catalog, budget)
        exchange = try makeExchange(gpus)
        slots = try gpus.map { gpu throws(DeviceError) in
            try gpu.slots(byteCount: budget.slotByteCount * budget.slotCount)
        }
        sources = zip(registered.pins, registered.locations).map { ($0, $1.dataOffset) }
    }

    /// What every worker is told of its slots.
    var workerSlots: [WorkerSlots] {
        slots.map { memory in
            WorkerSlots(
                handle: memory.handle, byteCount: memory.byteCount,
                slotByteCount: plan.plan.budget.slotByteCount,
                slotCount: plan.plan.budget.slotCount)
        }
    }

    /// What the copies need to know.
    var job: GatherRun.Job {
        GatherRun.Job(
            gpus: gpus, plan: plan.plan, sources: sources, slots: slots, exchange: exchange)
    }

    private static func budget(
        _ registered: RegisteredCheckpoint, _ gpus: [GPU], _ slotByteCountMax: Int
    ) throws(DeviceError) -> SlotBudget {
        var tightest: (gpu: GPU, free: Int)?
        for gpu in gpus {
            let free = try gpu.availableByteCount()
            if free < tightest?.free ?? .max { tightest = (gpu, free) }
        }
        do throws(SlotBudget.Shortage) {
            return try SlotBudget(
                byteCount: registered.catalog.byteCount,
                largestByteCount: registered.largestTensor?.range.byteCount ?? 0,
                slotByteCountMax: slotByteCountMax, freeByteCount: tightest?.free ?? 0)
        } catch {
            throw DeviceError(
                .insufficientMemory,
                "\(tightest?.gpu.device.description ?? "the GPU") has \(error.freeByteCount) bytes "
                    + "free; the largest tensor, \(registered.largestTensor?.name ?? "none"), needs "
                    + "a slot of \(error.neededByteCount) bytes beside "
                    + "\(SlotBudget.headroomByteCount) that stay free: lower the engine's share of "
                    + "the memory")
        }
    }
}

/// A plan with the catalog that workers are sent: offsets in slots instead of files.
struct PlannedGather: Sendable {
    let plan: GatherPlan
    let tensors: [TensorEntry]
    let schedule: DeliverySchedule

    init(_ catalog: Catalog, _ budget: SlotBudget) {
        let plan = GatherPlan(catalog: catalog, budget: budget)
        var tensors: [TensorEntry] = []
        tensors.reserveCapacity(catalog.tensors.count)
        for (index, bucket) in plan.buckets.enumerated() {
            for place in bucket.first..<(bucket.first + bucket.count) {
                let tensor = catalog.tensors[place]
                guard
                    let range = ByteRange(
                        offset: plan.offsets[place], byteCount: tensor.range.byteCount)
                else { preconditionFailure("offsets in a slot are small and not negative") }
                tensors.append(
                    TensorEntry(
                        name: tensor.name, dtype: tensor.dtype, shape: tensor.shape,
                        shard: plan.slot(of: index), range: range))
            }
        }
        self.plan = plan
        self.tensors = tensors
        schedule = DeliverySchedule(
            buckets: plan.buckets.map { bucket in
                DeliverySchedule.Bucket(
                    first: bucket.first, count: bucket.count, byteCount: bucket.byteCount)
            }, availableCount: 0)
    }
}
