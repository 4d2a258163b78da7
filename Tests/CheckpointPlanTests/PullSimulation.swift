import CheckpointModel
import CheckpointPlan
import CheckpointTesting

/// Runs a ``PullSchedule`` against sources of given speeds, in simulated time.
struct PullSimulation {
    enum Event {
        case finish(PullBatch)
        case retire(Int)
        case extend(Int, Range<Int>)
        case add(speeds: [Double], holdsAll: Bool)
    }

    private struct Wire {
        let speed: Double
        var busyUntil = 0.0
        var batches: [PullBatch] = []
    }

    var schedule: PullSchedule
    private(set) var now = 0.0
    /// By source, then by endpoint.
    private var wires: [[Wire]] = []
    private var events: [(seconds: Double, event: Event)] = []
    /// What came, in order.
    private(set) var arrived: [Int] = []
    private(set) var byteCounts: [Int] = []
    /// When each source ended its last batch.
    private(set) var endSeconds: [Double] = []
    /// When each chunk came.
    private(set) var seconds: [Int: Double] = [:]
    /// What was wrong, in words.
    private(set) var faults: [String] = []
    /// Batches whose chance of failing is one in so many; 0: none.
    var failureInterval = 0
    var latency = 0.0
    var generator: SeededGenerator

    init(
        order: PullOrder, receivers: Int, limits: PullLimits = PullLimits(), seed: UInt64 = 1
    ) {
        schedule = PullSchedule(order: order, receiverEndpointCount: receivers, limits: limits)
        generator = SeededGenerator(seed: seed)
    }

    @discardableResult
    mutating func add(speeds: [Double], holdsAll: Bool = true) -> Int {
        wires.append(speeds.map { Wire(speed: $0) })
        byteCounts.append(0)
        endSeconds.append(now)
        return schedule.addSource(endpointCount: speeds.count, holdsAll: holdsAll)
    }

    mutating func at(_ seconds: Double, _ event: Event) { events.append((seconds, event)) }

    /// Runs until nothing happens any more, or until `seconds`.
    mutating func run(until end: Double = .infinity) {
        startAll()
        while let index = events.indices.min(by: { events[$0].seconds < events[$1].seconds }),
            events[index].seconds <= end
        {
            let (seconds, event) = events.remove(at: index)
            now = seconds
            handle(event)
            startAll()
        }
    }

    private mutating func handle(_ event: Event) {
        switch event {
        case .finish(let batch): finish(batch)
        case .retire(let source): schedule.retire(source)
        case .extend(let source, let chunks): schedule.extend(source, with: chunks)
        case .add(let speeds, let holdsAll): add(speeds: speeds, holdsAll: holdsAll)
        }
    }

    private mutating func finish(_ batch: PullBatch) {
        if wires[batch.source][batch.sourceEndpoint].batches.first != batch {
            faults.append("a batch overtakes")
        }
        wires[batch.source][batch.sourceEndpoint].batches.removeFirst()
        if failureInterval > 0, Int.random(in: 0..<failureInterval, using: &generator) == 0 {
            if Bool.random(using: &generator) {
                schedule.fail(batch.id, at: now)
                return
            }
            let wrong = batch.chunks[0].lowerBound
            schedule.finish(batch.id, at: now, wrong: [wrong])
            note(batch, except: wrong)
            return
        }
        schedule.finish(batch.id, at: now)
        note(batch, except: nil)
    }

    private mutating func note(_ batch: PullBatch, except wrong: Int?) {
        byteCounts[batch.source] += batch.byteCount
        endSeconds[batch.source] = now
        for chunk in batch.chunks.joined() where chunk != wrong {
            if seconds.updateValue(now, forKey: chunk) != nil { faults.append("\(chunk) twice") }
            if !schedule.arrivals.contains(chunk) { faults.append("\(chunk) is not marked") }
            arrived.append(chunk)
        }
    }

    private mutating func startAll() {
        while let batch = schedule.next(at: now) {
            var wire = wires[batch.source][batch.sourceEndpoint]
            wire.busyUntil =
                max(now, wire.busyUntil) + latency + Double(batch.byteCount) / wire.speed
            wire.batches.append(batch)
            events.append((wire.busyUntil, .finish(batch)))
            wires[batch.source][batch.sourceEndpoint] = wire
            check(batch, wire)
        }
    }

    private mutating func check(_ batch: PullBatch, _ wire: Wire) {
        if wire.batches.count > schedule.limits.depth { faults.append("deeper than allowed") }
        if Set(wire.batches.map(\.receiverEndpoint)).count > 1 {
            faults.append("two receivers read one endpoint at once")
        }
        let byteCount = batch.chunks.joined().reduce(0) {
            $0 + schedule.order.grid.byteCount(of: $1)
        }
        if byteCount != batch.byteCount { faults.append("bytes are miscounted") }
        if batch.chunks.count == 0 { faults.append("an empty batch") }
        if byteCount > schedule.limits.batchByteCountMax, batch.chunks.joined().count > 1 {
            faults.append("a batch is too large")
        }
    }

    /// How many sources each endpoint of the receiver hears.
    func senderCounts() -> [Int] {
        var counts = [Int](repeating: 0, count: schedule.receiverEndpointCount)
        for wire in wires.joined() {
            if let batch = wire.batches.first { counts[batch.receiverEndpoint] += 1 }
        }
        return counts
    }
}

extension PullOrder {
    /// All chunks of shards of `chunkCounts` chunks of 1 MiB each, in their order, as ranges of 3
    /// MiB.
    static func plain(_ chunkCounts: [Int]) -> PullOrder? {
        guard let grid = ChunkGrid(shardByteCounts: chunkCounts.map { $0 << 20 }) else {
            return nil
        }
        var ranges: [ShardRange] = []
        for (shard, count) in chunkCounts.enumerated() {
            for start in stride(from: 0, to: count, by: 3) {
                guard
                    let range = ByteRange(
                        offset: start << 20, byteCount: min(3, count - start) << 20)
                else { return nil }
                ranges.append(ShardRange(shard: shard, range: range))
            }
        }
        return PullOrder(grid: grid, ranges: ranges)
    }
}
