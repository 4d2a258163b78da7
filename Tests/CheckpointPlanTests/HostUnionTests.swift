import CheckpointModel
import CheckpointPlan
import Testing

struct HostUnionTests {
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
