import CheckpointModel
import CheckpointPlan
import CheckpointTesting
import Testing

@testable import CheckpointPull

struct SourceLeaseTests {
    private static func state(_ arrived: [Range<Int>]? = [0..<1, 5..<ChunkGrid.countMax])
        -> LeaseState
    {
        LeaseState(
            secondsLeft: 9.5, isActive: true, readers: ["http://a:1", "http://[::1]:2"],
            arrived: arrived, content: "c0-1",
            endpoints: [SourceEndpoint(session: "h:1", addresses: [0, 1, 1 << 62])])
    }

    private static let lease = SourceLease(
        id: "lease-1", state: state(), incarnation: "é\"\n", digest: "f00", chunkByteCount: 1 << 20,
        shardByteCounts: [0, 1, 1 << 56])

    @Test func whatIsWrittenIsRead() throws {
        for arrived: [Range<Int>]? in [nil, [], [0..<1], [3..<4, 9..<20]] {
            let state = Self.state(arrived)
            #expect(try LeaseState(state.encoded()) == state)
            #expect(try LeaseState(state.encoded()).content == "c0-1")
        }
        #expect(try SourceLease(Self.lease.encoded()) == Self.lease)
        // A daemon may tell whole seconds without a point.
        let text = String(decoding: Self.state().encoded(), as: UTF8.self)
            .replacing("9.5", with: "10")
        #expect(try LeaseState(Array(text.utf8)).secondsLeft == 10)
    }

    @Test(arguments: [
        ("4611686018427387904", "4611686018427387905"), ("72057594037927936", "72057594037927937"),
        ("1048576", "9223372036854775807"), ("1048576", "0"), ("67108859", "67108865"),
    ])
    func numbersThatCannotBeAreRefused(_ right: String, _ wrong: String) throws {
        let text = String(decoding: Self.lease.encoded(), as: UTF8.self)
        #expect(text.contains(right))
        #expect(throws: (any Error).self) {
            try SourceLease(Array(text.replacing(right, with: wrong).utf8))
        }
    }

    @Test func cutTextsAreRefused() {
        let bytes = Self.lease.encoded()
        for count in 0..<bytes.count {
            #expect(throws: (any Error).self) { try SourceLease(Array(bytes.prefix(count))) }
        }
        let state = Self.state().encoded()
        for count in 0..<state.count {
            #expect(throws: (any Error).self) { try LeaseState(Array(state.prefix(count))) }
        }
        #expect(throws: (any Error).self) { try SourceLease(bytes + [UInt8(ascii: "}")]) }
        #expect(throws: (any Error).self) { try SourceLease(state) }
        #expect(throws: (any Error).self) { try LeaseState(bytes) }
    }

    @Test(arguments: [
        (#""expires_in":9.5"#, #""expires_in":-1"#), (#""expires_in":9.5"#, #""expires_in":-0.1"#),
        (#""expires_in":9.5"#, #""expires_in":"1""#), (#""expires_in":9.5"#, #""expires_in":null"#),
        (#""expires_in":9.5"#, #""expires_in":1e999"#), (#""active":true"#, #""active":1"#),
        (#""active":true"#, #""active":true,"more":1"#), (#""active":true,"#, ""),
        (#""readers":["http:"#, #""readers":[1,"http:"#), (#"[[0,1]"#, #"[[0,0]"#),
        (#"[[0,1]"#, #"[[-1,1]"#), (#"[[0,1]"#, #"[[0,-1]"#), (#"[[0,1]"#, #"[[0,1,2]"#),
        (#"[[0,1]"#, #"[[0]"#), (#"[[0,1]"#, #"[0,1"#), (#"[[0,1]"#, #"[[1,9223372036854775807]"#),
        (#"[[0,1]"#, #"[[1.5,1]"#), (#""session":"h:1""#, #""session":null"#),
        (#""addresses":[0,"#, #""addresses":[-1,"#), (#""addresses":[0,"#, #""addresses":["0","#),
        (#""addresses":[0,"#, #""addresses":[9223372036854775808,"#),
        (#""addresses":[0,"#, #""addresses":[[0],"#), (#"[[0,1]"#, #"[[0,1],[0,1]"#),
        (#"[[0,1]"#, #"[[0,6]"#), (#""content":"c0-1""#, #""content":1"#),
        (#""content":"c0-1""#, #""content":"""#), (#""content":"c0-1""#, #""content":"a b""#),
        (#""content":"c0-1","#, ""),
    ])
    func wrongStatesAreRefused(_ right: String, _ wrong: String) throws {
        let text = String(decoding: Self.state().encoded(), as: UTF8.self)
        let changed = text.replacing(right, with: wrong)
        try #require(changed != text)
        #expect(throws: (any Error).self) { try LeaseState(Array(changed.utf8)) }
        let lease = String(decoding: Self.lease.encoded(), as: UTF8.self)
        #expect(throws: (any Error).self) {
            try SourceLease(Array(lease.replacing(right, with: wrong).utf8))
        }
    }

    @Test(arguments: [
        (#""version":2"#, #""version":1"#), (#""version":2"#, #""version":"2""#),
        (#""lease":"lease-1""#, #""lease":"""#), (#""lease":"lease-1""#, #""lease":"a/b""#),
        (#""lease":"lease-1""#, #""lease":"a?b""#), (#""lease":"lease-1""#, #""lease":"a b""#),
        (#""lease":"lease-1""#, #""lease":"é""#), (#""lease":"lease-1""#, #""lease":7"#),
        (#""lease":"lease-1""#, #""lease":"a#b""#), (#""lease":"lease-1""#, #""lease":"a%2Fb""#),
        (#""chunk_bytes":1048576"#, #""chunk_bytes":0"#),
        (#""chunk_bytes":1048576"#, #""chunk_bytes":-1"#),
        (#""chunk_bytes":1048576"#, #""chunk_bytes":1.5"#),
        (#""shard_bytes":[0,"#, #""shard_bytes":["#),
        (#""shard_bytes":[0,"#, #""shard_bytes":[0,0,"#),
        (#""shard_bytes":[0,"#, #""shard_bytes":[-1,"#),
        (#""shard_bytes":[0,"#, #""shard_bytes":[null,"#), (#""digest":"f00""#, #""digest":[]"#),
        (#""digest":"f00""#, #""digest":"f00","digest":"f00""#),
    ])
    func wrongLeasesAreRefused(_ right: String, _ wrong: String) throws {
        let text = String(decoding: Self.lease.encoded(), as: UTF8.self)
        let changed = text.replacing(right, with: wrong)
        try #require(changed != text)
        #expect(throws: (any Error).self) { try SourceLease(Array(changed.utf8)) }
    }

    @Test func listsAreBounded() {
        func state(_ readers: Int) -> [UInt8] {
            LeaseState(
                secondsLeft: 1, isActive: false,
                readers: [String](repeating: "http://a", count: readers), arrived: nil,
                endpoints: [SourceEndpoint(session: "", addresses: [])]
            ).encoded()
        }
        #expect(throws: Never.self) { try LeaseState(state(LeaseState.readerCountMax)) }
        #expect(throws: (any Error).self) { try LeaseState(state(LeaseState.readerCountMax + 1)) }
    }

    /// Whatever bytes are changed, the text is read or refused, and nothing else.
    @Test func changedBytesDoNoHarm() {
        var generator = SeededGenerator(seed: .random(in: 0 ... .max))
        let text = Self.lease.encoded()
        for _ in 0..<3000 {
            var bytes = text
            for _ in 0..<Int.random(in: 1...3, using: &generator) {
                bytes[Int.random(in: 0..<bytes.count, using: &generator)] =
                    UInt8(truncatingIfNeeded: generator.next())
            }
            guard let lease = try? SourceLease(bytes) else { continue }
            #expect(lease.state.names(lease.shardByteCounts.count))
            #expect(lease.chunkByteCount > 0)
        }
    }
}

struct SourceAddressTests {
    @Test(
        arguments: [
            ("http://a:1", "http://a:1"), ("http://A:1///", "http://a:1"),
            ("http://[::1]:80", "http://[::1]"),
            ("http://host_1.example-x", "http://host_1.example-x"),
        ])
    func urlsOfDaemons(_ text: String, _ expected: String) throws {
        let address = try SourceAddress(url: text, token: "t")
        #expect(address.url == expected)
        #expect(address.token == "t")
    }

    @Test(arguments: [
        "", "http://", "http:///", "https://a:1", "HTTP://a", "a:1", "http://a/b", "http://u@a",
        "http://a?q", "http://a#f", "http://a b", "http://é", "http://a\n", "http://a%20",
        "http://" + String(repeating: "a", count: 1020), "unix:/a", "http://a\r\nhost: b",
        "http://a:0", "http://a:65536", "http://[::1", "http://a:8b", "http://[fe80::1%eth0]:1",
        "http://" + String(repeating: "a23456789.", count: 25) + "abc:1"
            + String(repeating: "/", count: 4096),
    ])
    func whatIsNoneIsRefused(_ text: String) {
        #expect(throws: AddressFlaw.self) { try SourceAddress(url: text) }
    }
}
