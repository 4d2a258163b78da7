import CheckpointPlan
import CheckpointTesting
import Testing

struct PullScheduleTests {
    private static let gigabyte = 1e9
    private static let chunkByteCount = Double(1 << 20)

    private static func simulation(
        chunks: Int = 4000, receivers: Int = 1, seed: UInt64 = 1
    ) throws -> PullSimulation {
        let order = try #require(PullOrder.plain([chunks]))
        return PullSimulation(order: order, receivers: receivers, seed: seed)
    }

    private static func probing(_ byteCount: Int) -> PullLimits {
        var limits = PullLimits()
        limits.probeByteCountMax = byteCount
        return limits
    }

    private static func required(_ batch: PullBatch?) throws -> PullBatch { try #require(batch) }

    @Test func oneSourceSendsEverythingInOrder() throws {
        var simulation = try Self.simulation()
        simulation.add(speeds: [Self.gigabyte])
        simulation.run()
        #expect(simulation.schedule.isComplete && simulation.faults == [])
        #expect(simulation.arrived == Array(0..<4000))
        #expect(simulation.schedule.pendingByteCount == 0)
        // The wire never waits.
        #expect(simulation.now < 4000 * Self.chunkByteCount / Self.gigabyte * 1.0001)
    }

    @Test func aSourceThatIsFourTimesSlowerGetsAQuarter() throws {
        var simulation = try Self.simulation(receivers: 2)
        simulation.add(speeds: [4 * Self.gigabyte])
        simulation.add(speeds: [Self.gigabyte])
        simulation.run()
        #expect(simulation.schedule.isComplete && simulation.faults == [])
        let ratio = Double(simulation.byteCounts[0]) / Double(simulation.byteCounts[1])
        #expect((3.8...4.2).contains(ratio), "\(ratio)")
        let ideal = 4000 * Self.chunkByteCount / (5 * Self.gigabyte)
        #expect(simulation.now < ideal + 2 * Self.chunkByteCount / Self.gigabyte)
    }

    @Test func aHopelesslySlowSourceDoesNotHoldTheEndUp() throws {
        var simulation = try Self.simulation()
        simulation.add(speeds: [10 * Self.gigabyte])
        simulation.add(speeds: [Self.gigabyte / 100])
        simulation.run()
        #expect(simulation.schedule.isComplete && simulation.faults == [])
        // It had two chunks at the start, and none that it could not have brought in time.
        #expect(simulation.byteCounts[1] <= 5 << 20)
        let ideal = 4000 * Self.chunkByteCount / (10.01 * Self.gigabyte)
        #expect(simulation.now < 1.15 * ideal, "\(simulation.now) of \(ideal)")
    }

    @Test func everyEndpointHasWork() throws {
        var simulation = try Self.simulation(receivers: 2)
        simulation.add(speeds: [Self.gigabyte, Self.gigabyte, Self.gigabyte])
        let lost = simulation.add(speeds: [Self.gigabyte, Self.gigabyte])
        simulation.run(until: 0.3)
        #expect(simulation.senderCounts().sorted() == [2, 3])
        simulation.at(0.31, .retire(lost))
        simulation.run(until: 0.5)
        #expect(simulation.senderCounts().sorted() == [1, 2])
        simulation.run()
        #expect(simulation.schedule.isComplete && simulation.faults == [])
    }

    @Test func receiversThatLostTheirSourceGetAnother() throws {
        var simulation = try Self.simulation(receivers: 2)
        let sources = (0..<4).map { _ in simulation.add(speeds: [Self.gigabyte]) }
        simulation.run(until: 0.1)
        #expect(simulation.senderCounts() == [2, 2])
        // Sources took turns: these two send to one receiver.
        for source in sources where source.isMultiple(of: 2) {
            simulation.at(0.11, .retire(source))
        }
        simulation.run(until: 0.4)
        #expect(simulation.senderCounts() == [1, 1])
    }

    @Test func aRetiredSourceKeepsItsChunksUntilItsBatchesEnd() throws {
        let order = try #require(PullOrder.plain([100]))
        var schedule = PullSchedule(
            order: order, receiverEndpointCount: 1, limits: Self.probing(4 << 20))
        let source = schedule.addSource(endpointCount: 1, holdsAll: true)
        let first = try Self.required(schedule.next(at: 0))
        let second = try Self.required(schedule.next(at: 0))
        let third = schedule.next(at: 0)
        #expect(third == nil)
        #expect(first.chunks == [0..<4] && second.chunks == [4..<8])
        #expect(schedule.pendingByteCount == 92 << 20)
        schedule.retire(source)
        #expect(
            schedule.receivers(draining: source) == [0] && schedule.pendingByteCount == 92 << 20)
        _ = schedule.addSource(endpointCount: 1, holdsAll: true)
        let other = try Self.required(schedule.next(at: 0))
        #expect(other.chunks == [8..<12])
        schedule.finish(first.id, at: 1)
        #expect(
            schedule.receivers(draining: source) == [0] && schedule.arrivals.completeChunkCount == 4
        )
        schedule.fail(second.id, at: 1)
        #expect(schedule.receivers(draining: source) == [] && schedule.pendingByteCount == 92 << 20)
        let again = try Self.required(schedule.next(at: 1))
        #expect(again.chunks == [4..<8])
    }

    @Test func nothingIsAskedForBeforeThereIsRoom() throws {
        let order = try #require(PullOrder.plain([100]))
        var schedule = PullSchedule(
            order: order, receiverEndpointCount: 1, openPlaceCount: 6,
            limits: Self.probing(4 << 20))
        _ = schedule.addSource(endpointCount: 1, holdsAll: true)
        let partial = schedule.addSource(endpointCount: 1, holdsAll: false)
        schedule.extend(partial, with: 50..<100)
        #expect(!schedule.waitsForRoom)
        let first = try Self.required(schedule.next(at: 0))
        let second = try Self.required(schedule.next(at: 0))
        #expect(first.chunks == [0..<4] && second.chunks == [4..<6])
        var none = schedule.next(at: 0)
        #expect(none == nil)
        schedule.finish(first.id, at: 0.01)
        none = schedule.next(at: 0.01)
        #expect(none == nil && !schedule.waitsForRoom)
        schedule.finish(second.id, at: 0.01)
        #expect(schedule.waitsForRoom)
        schedule.open(8)
        schedule.open(7)
        #expect(!schedule.waitsForRoom)
        let third = try Self.required(schedule.next(at: 0.01))
        #expect(third.chunks == [6..<8])
        schedule.finish(third.id, at: 0.02)
        schedule.open(100)
        while let batch = schedule.next(at: 0.03) { schedule.finish(batch.id, at: 0.03) }
        #expect(schedule.isComplete && !schedule.waitsForRoom)
    }

    @Test func wrongChunksAreAskedForAgain() throws {
        let order = try #require(PullOrder.plain([6]))
        var schedule = PullSchedule(
            order: order, receiverEndpointCount: 1, limits: Self.probing(4 << 20))
        _ = schedule.addSource(endpointCount: 1, holdsAll: true)
        let first = try Self.required(schedule.next(at: 0))
        let second = try Self.required(schedule.next(at: 0))
        #expect(first.chunks == [0..<4] && second.chunks == [4..<6])
        schedule.finish(first.id, at: 0.001, wrong: [1, 2])
        #expect(schedule.arrivals.completeChunkCount == 1)
        let again = try Self.required(schedule.next(at: 0.001))
        #expect(again.chunks == [1..<3])
        schedule.finish(second.id, at: 0.002)
        schedule.fail(again.id, at: 0.003)
        let last = try Self.required(schedule.next(at: 0.003))
        schedule.finish(last.id, at: 0.004)
        #expect(schedule.isComplete && schedule.arrivals.completeRangeCount == order.rangeCount)
    }

    @Test func nobodyWaitsForASourceThatIsSlower() throws {
        let order = try #require(PullOrder.plain([40]))
        var limits = PullLimits()
        limits.depth = 1
        var schedule = PullSchedule(order: order, receiverEndpointCount: 1, limits: limits)
        let slow = schedule.addSource(endpointCount: 1, holdsAll: true)
        schedule.finish(try Self.required(schedule.next(at: 0)).id, at: 100)
        #expect(try Self.required(schedule.next(at: 100)).source == slow)
        for _ in 0..<6 { _ = schedule.addSource(endpointCount: 1, holdsAll: true) }
        var seconds = 100.0
        var batches: [PullBatch] = []
        while schedule.pendingByteCount > 0 {
            while let batch = schedule.next(at: seconds) { batches.append(batch) }
            seconds += 0.001
            for batch in batches.dropLast() { schedule.finish(batch.id, at: seconds) }
            batches = batches.suffix(1)
        }
        let last = try #require(batches.first)
        schedule.fail(last.id, at: seconds)
        // Six are idle, so that the share of each is a sixth of a chunk; one takes it nevertheless.
        #expect(try Self.required(schedule.next(at: seconds)).source != slow)
    }

    /// An agent lets its reads flow into one another, and a connection may overtake another.
    @Test(arguments: [0, 1, 2])
    func batchesLastAsLongAsTheyShouldInWhateverOrderTheyEnd(endOrder: Int) throws {
        let order = try #require(PullOrder.plain([4000]))
        var schedule = PullSchedule(order: order, receiverEndpointCount: 1)
        _ = schedule.addSource(endpointCount: 1, holdsAll: true)
        // 20 chunks in the time that a batch should take.
        let rate = 20 * Self.chunkByteCount / schedule.limits.batchSeconds
        var seconds = 0.0
        var byteCounts: [Int] = []
        for _ in 0..<50 {
            var batches: [PullBatch] = []
            while let batch = schedule.next(at: seconds) { batches.append(batch) }
            #expect(batches.count == schedule.limits.depth)
            byteCounts += batches.map(\.byteCount)
            let ends = seconds + Double(batches.map(\.byteCount).reduce(0, +)) / rate
            if endOrder == 1 { batches.reverse() }
            for (number, batch) in batches.enumerated() {
                let isEarly = endOrder != 2 && number == 0
                let share = Double(batch.byteCount) / rate
                schedule.finish(batch.id, at: isEarly ? seconds + share : ends)
            }
            seconds = ends
        }
        // The first ones were asked for before anything was measured.
        for byteCount in byteCounts.dropFirst(20) {
            #expect((10 << 20...21 << 20).contains(byteCount), "\(byteCount)")
        }
    }

    @Test func aGrowingSourceIsUsedForWhatItHas() throws {
        var simulation = try Self.simulation()
        simulation.add(speeds: [Self.gigabyte])
        let growing = simulation.add(speeds: [Self.gigabyte], holdsAll: false)
        for start in stride(from: 0, to: 4000, by: 50) {
            simulation.at(Double(start) * 0.0006, .extend(growing, start..<(start + 50)))
        }
        simulation.run()
        #expect(simulation.schedule.isComplete && simulation.faults == [])
        let share = Double(simulation.byteCounts[growing]) / (4000 * Self.chunkByteCount)
        // It grows at 7/8 of the rate at which both together send.
        #expect(share > 0.4, "\(share)")
    }

    @Test func aSourceOfTheRestIsEnoughOnlyWithIt() throws {
        var simulation = try Self.simulation(chunks: 300)
        let low = simulation.add(speeds: [Self.gigabyte], holdsAll: false)
        simulation.schedule.extend(low, with: 0..<200)
        simulation.run()
        #expect(!simulation.schedule.isComplete && simulation.arrived.count == 200)
        let high = simulation.add(speeds: [Self.gigabyte], holdsAll: false)
        simulation.schedule.extend(high, with: 190..<300)
        simulation.run()
        #expect(simulation.schedule.isComplete && simulation.faults == [])
    }

    @Test func anEmptyPullIsComplete() throws {
        let order = try #require(PullOrder.plain([]))
        var schedule = PullSchedule(order: order, receiverEndpointCount: 1)
        _ = schedule.addSource(endpointCount: 1, holdsAll: false)
        _ = schedule.addSource(endpointCount: 1, holdsAll: true)
        let batch = schedule.next(at: 0)
        #expect(schedule.isComplete && batch == nil)
    }
}
