import CheckpointPlan
import CheckpointTesting
import Testing

/// Random sources, holdings, growth, deaths and failures.
struct PullPropertyTests {
    private static let chunkByteCount = Double(1 << 20)

    @Test(arguments: 0..<60 as Range<UInt64>)
    func everyChunkArrivesOnce(_ seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        let counts = (0..<3).map { _ in Int.random(in: 0...400, using: &generator) }
        let order = try #require(PullOrder.plain(counts))
        let receivers = Int.random(in: 1...3, using: &generator)
        var limits = PullLimits()
        limits.depth = Int.random(in: 1...3, using: &generator)
        var simulation = PullSimulation(
            order: order, receivers: receivers, limits: limits, seed: seed)
        simulation.failureInterval = 20
        simulation.latency = Double.random(in: 0...0.002, using: &generator)
        // One source stays; the others come, grow and go as they like.
        simulation.add(speeds: Self.speeds(&generator))
        for source in 1...5 {
            let isPartial = Bool.random(using: &generator)
            simulation.add(speeds: Self.speeds(&generator), holdsAll: !isPartial)
            if isPartial {
                var start = 0
                var seconds = 0.0
                while start < order.grid.count {
                    let end = min(
                        order.grid.count, start + Int.random(in: 1...90, using: &generator))
                    simulation.at(seconds, .extend(source, start..<end))
                    seconds += Double.random(in: 0...0.05, using: &generator)
                    start = end + Int.random(in: 0...20, using: &generator)
                }
            }
            if Bool.random(using: &generator) {
                simulation.at(Double.random(in: 0...0.5, using: &generator), .retire(source))
            }
        }
        simulation.at(
            Double.random(in: 0...0.3, using: &generator),
            .add(speeds: Self.speeds(&generator), holdsAll: true))
        simulation.run()
        #expect(simulation.faults == [], "seed \(seed)")
        #expect(simulation.schedule.isComplete, "seed \(seed)")
        #expect(Set(simulation.arrived).count == order.count, "seed \(seed)")
        #expect(simulation.arrived.count == order.count, "seed \(seed)")
        #expect(simulation.schedule.pendingByteCount == 0)
    }

    private static func speeds(_ generator: inout SeededGenerator) -> [Double] {
        (0..<Int.random(in: 1...3, using: &generator)).map { _ in
            Double.random(in: 0.2e9...4e9, using: &generator)
        }
    }

    /// Complete sources end together, near the ideal time, and the prefix is never far behind.
    @Test(arguments: 100..<140 as Range<UInt64>)
    func sourcesShareTheLoadAndKeepTheOrder(_ seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        let order = try #require(PullOrder.plain([3000, 1000]))
        var simulation = PullSimulation(order: order, receivers: 2, seed: seed)
        let speeds = (0..<Int.random(in: 2...5, using: &generator)).map { _ in
            Double.random(in: 0.2e9...4e9, using: &generator)
        }
        for speed in speeds { simulation.add(speeds: [speed]) }
        simulation.run()
        #expect(simulation.schedule.isComplete && simulation.faults == [], "seed \(seed)")
        let total = speeds.reduce(0, +)
        let slowest = speeds.min() ?? 1
        let chunkSeconds = Self.chunkByteCount / slowest
        let ideal = Double(order.count) * Self.chunkByteCount / total
        #expect(simulation.now <= ideal + 2 * chunkSeconds, "seed \(seed)")
        let ends = simulation.endSeconds
        let spread = (ends.max() ?? 0) - (ends.min() ?? 0)
        #expect(spread <= 2 * chunkSeconds, "seed \(seed): \(spread) s")
        // A chunk is overtaken by what the others send while two batches of its own source take.
        let batchSeconds = 2 * max(simulation.schedule.limits.batchSeconds, 4 * chunkSeconds)
        let bound = Int(batchSeconds * total / Self.chunkByteCount) + 64
        var latest = 0
        for (position, chunk) in simulation.arrived.enumerated() {
            latest = max(latest, abs(position - chunk))
        }
        #expect(latest <= bound, "seed \(seed): \(latest) of \(bound)")
    }

    /// A host that grows by another's hands helps as much as its rate allows; the end is near the
    /// ideal.
    @Test(arguments: 200..<220 as Range<UInt64>)
    func partialSourcesAddTheirRate(_ seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        let order = try #require(PullOrder.plain([4000]))
        var simulation = PullSimulation(order: order, receivers: 1, seed: seed)
        let speeds = (0..<2).map { _ in Double.random(in: 0.5e9...2e9, using: &generator) }
        simulation.add(speeds: [speeds[0]])
        let partial = simulation.add(speeds: [speeds[1]], holdsAll: false)
        // It is as fast as both together, and 200 chunks ahead.
        let total = speeds[0] + speeds[1]
        for start in stride(from: 0, to: 4000, by: 20) {
            let seconds = Double(max(0, start - 200)) * Self.chunkByteCount / total
            simulation.at(seconds, .extend(partial, start..<(start + 20)))
        }
        simulation.run()
        #expect(simulation.schedule.isComplete && simulation.faults == [], "seed \(seed)")
        let ideal = 4000 * Self.chunkByteCount / total
        #expect(simulation.now < 1.05 * ideal, "seed \(seed): \(simulation.now) of \(ideal)")
    }
}
