import CheckpointModel
import Testing

@testable import CheckpointPlan

struct HostUnionTests {
    private static func tensor(_ name: String, _ count: Int = 4, shard: Int = 0) throws
        -> TensorEntry
    {
        TensorEntry(
            name: name, dtype: .u8, shape: try #require(Shape([count])), shard: shard,
            range: try #require(ByteRange(offset: 0, byteCount: count)))
    }

    @Test func whatOneHostHasComesFromIt() throws {
        let both = try Self.tensor("both")
        let union = try HostUnion(
            catalogs: [[both, try Self.tensor("first")], [both, try Self.tensor("second")]], host: 1
        )
        let owners = Dictionary(
            zip(union.tensors.map(\.name), union.places.map(\.owner)), uniquingKeysWith: { $1 })
        #expect(owners == ["both": nil, "first": 0, "second": 1])
        #expect(zip(union.tensors, union.places).allSatisfy { ($0.name != "first") == $1.isLocal })
    }

    /// Else it would count as one that both have, with a place that is the other host's.
    @Test func aHostThatNamesATensorTwiceIsRefused() throws {
        let twice = try Self.tensor("w", shard: 1_000_000)
        #expect(throws: HostUnion.Conflict(name: "w", hosts: [0, 0])) {
            try HostUnion(catalogs: [[twice, twice], []], host: 1)
        }
        #expect(throws: HostUnion.Conflict(name: "w", hosts: [0, 1])) {
            try HostUnion(catalogs: [[twice], [try Self.tensor("w", 5)]], host: 1)
        }
    }

    private static let composed = "caf\u{e9}"
    private static let decomposed = "cafe\u{301}"

    @Test func hostsHaveTwoTensorsOfTwoForms() throws {
        let shape = try #require(Shape([1]))
        let range = try #require(ByteRange(offset: 0, byteCount: 1))
        let catalogs = [Self.composed, Self.decomposed].map { name in
            [TensorEntry(name: name, dtype: .u8, shape: shape, shard: 0, range: range)]
        }
        let union = try HostUnion(catalogs: catalogs, host: 0)
        #expect(union.tensors.count == 2)
        #expect(Set(union.places.map(\.owner)) == [0, 1])
    }
}
