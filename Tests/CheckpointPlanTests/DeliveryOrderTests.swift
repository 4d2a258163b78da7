import CheckpointModel
import CheckpointTesting
import Testing

@testable import CheckpointPlan

/// The order of delivery beside a plain definition of natural order, and the plan's cost.
struct DeliveryOrderTests {
    /// A name as its parts: runs of digits as numbers, everything else byte by byte.
    private enum Part: Comparable {
        case separator
        case number(UInt64)
        case byte(UInt8)
    }

    private static func parts(_ name: String) -> [Part] {
        var parts: [Part] = []
        var number: UInt64?
        for byte in name.utf8 {
            if (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) {
                number = (number ?? 0) * 10 + UInt64(byte - UInt8(ascii: "0"))
                continue
            }
            if let value = number { parts.append(.number(value)) }
            number = nil
            parts.append(byte == UInt8(ascii: ".") ? .separator : .byte(byte))
        }
        if let value = number { parts.append(.number(value)) }
        return parts
    }

    /// Words, numbers, separators; letters only where a number is not, since digits sort before them.
    private static func name(using generator: inout SeededGenerator) -> String {
        (0..<Int.random(in: 1...6, using: &generator)).map { _ in
            switch Int.random(in: 0..<3, using: &generator) {
            case 0: "\(UInt32.random(in: 0...1200, using: &generator))."
            case 1: ["layers.", "w.", "experts."].randomElement(using: &generator) ?? "x."
            default: ["a", "b_", "w-"].randomElement(using: &generator) ?? "x"
            }
        }.joined()
    }

    private static func catalog(_ names: [String]) throws -> Catalog {
        let tensors = try names.enumerated().map { index, name in
            TensorEntry(
                name: name, dtype: .u8, shape: try #require(Shape([1])), shard: 0,
                range: try #require(ByteRange(offset: index, byteCount: 1)))
        }
        return try Catalog(shards: [.init(name: "m", byteCount: names.count)], tensors: tensors)
    }

    @Test(arguments: 0..<60 as Range<UInt64>)
    func isTheNaturalOrderOfNames(_ seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        let names = Set((0..<80).map { _ in Self.name(using: &generator) }).shuffled(
            using: &generator)
        let plan = UpdatePlan(catalog: try Self.catalog(names), bucketByteCountMax: 7)
        let delivered = plan.order.map { Self.parts(names[$0]) }
        for (before, after) in zip(delivered, delivered.dropFirst()) {
            #expect(!after.lexicographicallyPrecedes(before), "seed \(seed)")
        }
    }

    @Test(arguments: 0..<20 as Range<UInt64>)
    func doesNotDependOnTheOrderInTheFiles(_ seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        let names = Array(Set((0..<80).map { _ in Self.name(using: &generator) }))
        let shuffled = names.shuffled(using: &generator)
        let first = UpdatePlan(catalog: try Self.catalog(names), bucketByteCountMax: 16)
        let second = UpdatePlan(catalog: try Self.catalog(shuffled), bucketByteCountMax: 16)
        #expect(
            first.order.map { names[$0] } == second.order.map { shuffled[$0] }, "seed \(seed)")
    }

    /// Longer than a machine word, and longer than the length byte of a key.
    @Test func longNumbersKeepTheirOrder() throws {
        let names = [
            "l." + String(repeating: "9", count: 40), "l.1" + String(repeating: "0", count: 40),
            "l." + String(repeating: "9", count: 300) + ".a",
        ]
        let plan = UpdatePlan(
            catalog: try Self.catalog([names[2], names[1], names[0]]), bucketByteCountMax: 1)
        #expect(plan.order == [2, 1, 0])
    }

    /// The digest changes with each property of a tensor that a worker depends on.
    @Test func theDigestCoversEveryProperty() throws {
        func digest(
            name: String = "a", dtype: DType = .u8, shape: [Int] = [4, 2], offset: Int = 0,
            limit: Int = 100
        ) throws -> UInt64 {
            let entries = try [(name, dtype, shape, offset), ("z", .u8, [8], 1000)].map {
                name, dtype, dimensions, offset in
                let shape = try #require(Shape(dimensions))
                let byteCount = try #require(shape.byteCount(of: dtype))
                return TensorEntry(
                    name: name, dtype: dtype, shape: shape, shard: 0,
                    range: try #require(ByteRange(offset: offset, byteCount: byteCount)))
            }
            let catalog = try Catalog(shards: [.init(name: "m", byteCount: 2000)], tensors: entries)
            return UpdatePlan(catalog: catalog, bucketByteCountMax: limit).digest
        }
        let all = [
            try digest(), try digest(name: "b"), try digest(dtype: .i8),
            try digest(shape: [2, 4]), try digest(shape: [8]), try digest(offset: 8),
            try digest(limit: 8),
        ]
        #expect(Set(all).count == all.count)
        #expect(try digest() == all[0])
    }

    @Test func aCatalogOfNothingHasNoBucket() throws {
        let plan = UpdatePlan(catalog: try Catalog(shards: [], tensors: []), bucketByteCountMax: 1)
        #expect(plan.order.isEmpty && plan.buckets.isEmpty && plan.byteCount == 0)
    }

    /// The largest models have this many tensors; a build without optimisation is allowed half a minute.
    @Test func manyTensorsArePlannedInBoundedTime() throws {
        let names = (0..<150_000).map { index in
            "model.layers.\(index % 61).mlp.experts.\(index / 61 % 820).w\(index / 50_020).weight"
        }
        let catalog = try Self.catalog(names)
        let start = ContinuousClock.now
        let plan = UpdatePlan(catalog: catalog, bucketByteCountMax: 1000)
        let duration = start.duration(to: .now)
        #expect(plan.buckets.count == 150)
        #expect(plan.order.count == 150_000)
        #expect(duration < .seconds(30), "\(duration)")
    }
}
