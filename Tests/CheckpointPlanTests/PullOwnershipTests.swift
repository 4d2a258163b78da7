import CheckpointModel
import CheckpointPlan
import CheckpointTesting
import Testing

/// Whoever owes a write to memory owns it until it has answered or is dead.
struct PullOwnershipTests {
    private static func schedule(_ chunks: Int = 100, receivers: Int) throws -> PullSchedule {
        var limits = PullLimits()
        limits.probeByteCountMax = 4 << 20
        return PullSchedule(
            order: try #require(PullOrder.plain([chunks])), receiverEndpointCount: receivers,
            limits: limits)
    }

    private static func all(_ schedule: inout PullSchedule) -> [PullBatch] {
        var batches: [PullBatch] = []
        while let batch = schedule.next(at: 0) { batches.append(batch) }
        return batches
    }

    /// Two readers that time out together: what either owes goes to others when that one is dead.
    @Test func eachReaderKeepsWhatItOwes() throws {
        var schedule = try Self.schedule(receivers: 2)
        let silent = schedule.addSource(endpointCount: 2, holdsAll: true)
        let batches = Self.all(&schedule)
        #expect(batches.count == 4 && schedule.pendingByteCount == 84 << 20)
        schedule.retire(silent)
        #expect(schedule.receivers(draining: silent) == [0, 1])
        schedule.close(0)
        schedule.close(1)
        _ = schedule.addSource(endpointCount: 2, holdsAll: true)
        var next = Self.all(&schedule)
        #expect(next == [])

        schedule.settle(1, at: 1)
        #expect(schedule.pendingByteCount == 92 << 20)
        #expect(schedule.receivers(draining: silent) == [0])
        next = Self.all(&schedule)
        #expect(next == [])
        schedule.reopen(1)
        next = Self.all(&schedule)
        let settled = batches.filter { $0.receiverEndpoint == 1 }
        let owed = Set(batches.filter { $0.receiverEndpoint == 0 }.flatMap(\.chunks).joined())
        #expect(next.allSatisfy { $0.receiverEndpoint == 1 })
        #expect(owed.count == 8 && owed.isDisjoint(with: next.flatMap(\.chunks).joined()))
        for batch in settled {
            let isTaken = schedule.answer(batch.id)
            #expect(!isTaken && !schedule.isUnderWay(batch.id))
        }
        #expect(next.prefix(settled.count).map(\.chunks) == settled.map(\.chunks))
    }

    /// What has been answered is its caller's, also when its reader then dies of another read.
    @Test func anAnswerIsNotSettled() throws {
        var schedule = try Self.schedule(8, receivers: 1)
        _ = schedule.addSource(endpointCount: 1, holdsAll: true)
        let batches = Self.all(&schedule)
        #expect(batches.count == 2)
        let isTaken = schedule.answer(batches[0].id)
        #expect(isTaken)
        schedule.close(0)
        schedule.settle(0, at: 1)
        #expect(schedule.isUnderWay(batches[0].id) && !schedule.isUnderWay(batches[1].id))
        #expect(schedule.pendingByteCount == 4 << 20)
        schedule.finish(batches[0].id, at: 2)
        schedule.reopen(0)
        for _ in 0..<8 {
            for batch in Self.all(&schedule) { schedule.finish(batch.id, at: 3) }
        }
        #expect(schedule.isComplete)
    }

    /// One that is left reads on alone, with all sources.
    @Test func theOthersReadOn() throws {
        var schedule = try Self.schedule(20, receivers: 2)
        schedule.close(0)
        _ = schedule.addSource(endpointCount: 3, holdsAll: true)
        for _ in 0..<50 where !schedule.isComplete {
            let batches = Self.all(&schedule)
            #expect(batches.allSatisfy { $0.receiverEndpoint == 1 })
            for batch in batches { schedule.finish(batch.id, at: 1) }
        }
        #expect(schedule.isComplete)
    }

    @Test(arguments: 0..<40 as Range<UInt64>) func noPlaceHasTwoOwners(_ seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        let order = try #require(
            PullOrder.plain((0..<2).map { _ in Int.random(in: 1...60, using: &generator) }))
        let ranges = order.chunks.compactMap { chunk in
            // Two tensors in each chunk, so that ranges share chunks.
            let range = order.grid.range(of: chunk)
            return ByteRange(offset: range.range.offset + 100, byteCount: 1 << 19).map {
                ShardRange(shard: range.shard, range: $0)
            }
        }
        let layout: PullLayout =
            Bool.random(using: &generator)
            ? .whole(order)
            : .ring(
                try PullRing(
                    grid: order.grid, ranges: ranges,
                    slotCount: Int.random(in: 2...20, using: &generator)))
        var memory = OwnedMemory(layout, generator)
        for _ in 0..<2000 where !memory.schedule.isComplete { memory.event() }
        memory.settleAll()
        #expect(memory.faults == [], "seed \(seed)")
        #expect(memory.schedule.isComplete, "seed \(seed)")
        #expect(memory.schedule.pendingByteCount == 0)
    }
}

/// A pull under random events, and who may write where.
private struct OwnedMemory {
    private enum Seat { case open, closed, dead }
    private struct Place: Hashable {
        let location: Int
        let offset: Int
    }

    private let layout: PullLayout
    var schedule: PullSchedule
    private var generator: SeededGenerator
    private var seats: [Seat]
    private var sources: [Int] = []
    private var read: [PullBatch] = []
    private var answered: [PullBatch] = []
    /// Batches that have ended with their readers.
    private var settled: [PullBatch] = []
    /// The batch whose reader may write there.
    private var owners: [Place: Int] = [:]
    private(set) var faults: [String] = []

    init(_ layout: PullLayout, _ generator: SeededGenerator) {
        self.layout = layout
        self.generator = generator
        var limits = PullLimits()
        limits.probeByteCountMax = 3 << 20
        let count = Int.random(in: 1...3, using: &self.generator)
        seats = [Seat](repeating: .open, count: count)
        schedule = PullSchedule(
            order: layout.order, receiverEndpointCount: count,
            openPlaceCount: layout.placeCount(released: 0), limits: limits)
    }

    mutating func event() {
        switch Int.random(in: 0..<16, using: &generator) {
        case 0: addSource()
        case 1: if let source = pick(sources) { schedule.retire(source) }
        case 2: close()
        case 3: die()
        case 4: reopen()
        case 5: lateAnswer()
        case 6: release()
        case 7, 8, 9: answer()
        case 10, 11: end()
        default: if let batch = schedule.next(at: 0) { begin(batch) }
        }
    }

    /// Everybody does what is left.
    mutating func settleAll() {
        addSource()
        for _ in 0..<2000 where !schedule.isComplete {
            die()
            reopen()
            release()
            answer()
            end()
            if let batch = schedule.next(at: 0) { begin(batch) }
        }
    }

    private mutating func pick<Element>(_ elements: [Element]) -> Element? {
        elements.randomElement(using: &generator)
    }

    private mutating func seat(_ kind: Seat) -> Int? {
        pick(seats.indices.filter { seats[$0] == kind })
    }

    private mutating func addSource() {
        let count = Int.random(in: 1...3, using: &generator)
        sources.append(schedule.addSource(endpointCount: count, holdsAll: true))
    }

    private func places(of batch: PullBatch) -> [Place] {
        batch.chunks.joined().map { chunk in
            let piece = layout.piece(of: chunk)
            return Place(location: piece.location, offset: piece.offset)
        }
    }

    private mutating func begin(_ batch: PullBatch) {
        if seats[batch.receiverEndpoint] != .open { faults.append("nobody reads there") }
        if batch.chunks.joined().contains(where: schedule.arrivals.contains) {
            faults.append("what has arrived is written again")
        }
        for place in places(of: batch) where owners.updateValue(batch.id, forKey: place) != nil {
            faults.append("\(place) has two owners")
        }
        read.append(batch)
    }

    private mutating func answer() {
        guard let batch = pick(read) else { return }
        if !schedule.answer(batch.id) { faults.append("an answer is not taken") }
        read.removeAll { $0 == batch }
        answered.append(batch)
    }

    /// Looks at the bytes; until then nobody may write them.
    private mutating func end() {
        guard let batch = pick(answered) else { return }
        answered.removeAll { $0 == batch }
        for place in places(of: batch) where owners.removeValue(forKey: place) != batch.id {
            faults.append("\(place) has changed hands")
        }
        if Int.random(in: 0..<4, using: &generator) == 0 {
            schedule.fail(batch.id, at: 0)
        } else {
            schedule.finish(batch.id, at: 0)
        }
    }

    private mutating func close() {
        guard let receiver = seat(.open) else { return }
        schedule.close(receiver)
        seats[receiver] = .closed
    }

    private mutating func die() {
        guard let receiver = seat(.closed) else { return }
        schedule.settle(receiver, at: 0)
        seats[receiver] = .dead
        for batch in read where batch.receiverEndpoint == receiver {
            for place in places(of: batch) { owners[place] = nil }
            settled.append(batch)
        }
        read.removeAll { $0.receiverEndpoint == receiver }
    }

    private mutating func reopen() {
        guard let receiver = seat(.dead) else { return }
        schedule.reopen(receiver)
        seats[receiver] = .open
    }

    private mutating func lateAnswer() {
        guard let batch = pick(settled) else { return }
        if schedule.answer(batch.id) { faults.append("an answer of a dead reader counts") }
    }

    /// Some of what is complete is delivered: its places are free.
    private mutating func release() {
        let count = schedule.arrivals.completeRangeCount
        schedule.open(layout.placeCount(released: Int.random(in: 0...count, using: &generator)))
    }
}
