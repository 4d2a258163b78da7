import CheckpointModel
import CheckpointTesting
import Foundation
import Testing

@testable import CheckpointEngine

struct MetasDocumentTests {
    private static func encoded(_ document: MetasDocument) throws -> [UInt8] {
        Array(try JSONEncoder().encode(document))
    }

    @Test func oursIsReadAsItIsWritten() throws {
        var generator = SeededGenerator(seed: .random(in: 0 ... .max))
        let catalog = RandomCatalog.make(tensorCount: 40, shardCount: 3, using: &generator)
        let source = MetasDocument.Source(url: "http://a:1", checkpoint: "step-1")
        for document in [
            MetasDocument(ranks: [:]), MetasDocument(catalog: catalog),
            MetasDocument(
                catalog: catalog, session: "h:1", addresses: [0, 4096, 1 << 46], source: source),
        ] {
            #expect(try MetasDocument(json: Self.encoded(document)) == document)
        }
    }

    /// What PyPI's package writes has no field of ours.
    @Test func theOtherPackagesIsRead() throws {
        let text = """
            {"0": {"p2p_store_addr": "10.0.0.1:12345", "rdma_device": "mlx5_0",
              "memory_buffer_metas_list": [{"ptr": 140000000000000, "size": 4096, "metas": [
                {"name": "model.a", "dtype": "torch.bfloat16", "shape": [2, 3],
                 "aligned_size": 256}]}]},
             "11": {"p2p_store_addr": null, "rdma_device": "", "memory_buffer_metas_list": []}}
            """
        let document = try MetasDocument(json: Array(text.utf8))
        #expect(document.ranks.keys.sorted() == [0, 11])
        let rank = try #require(document.ranks[0])
        #expect(rank.p2pStoreAddress == "10.0.0.1:12345" && rank.rdmaDevice == "mlx5_0")
        #expect(rank.source == nil && document.sourceURLs.isEmpty)
        #expect(rank.buffers[0].ptr == 140_000_000_000_000 && rank.buffers[0].size == 4096)
        #expect(
            rank.buffers[0].metas == [
                MetasDocument.Parameter(
                    name: "model.a", dtype: "torch.bfloat16", shape: [2, 3], alignedSize: 256)
            ])
        #expect(document.ranks[11]?.p2pStoreAddress == nil)
        #expect(try MetasDocument(json: Self.encoded(document)) == document)
    }

    @Test func daemonsAreNamedOnce() throws {
        func rank(_ url: String?) -> MetasDocument.Rank {
            MetasDocument.Rank(
                p2pStoreAddress: nil, buffers: [], rdmaDevice: "",
                source: url.map { MetasDocument.Source(url: $0, checkpoint: "c") })
        }
        let document = MetasDocument(
            ranks: [3: rank("http://b"), 1: rank("http://c"), 2: rank(nil), 10: rank("http://b")])
        #expect(document.sourceURLs == ["http://c", "http://b"])
    }

    private static let rank =
        #"{"p2p_store_addr":null,"rdma_device":"","memory_buffer_metas_list":[]}"#
    private static let buffered = #"""
        {"0":{"p2p_store_addr":null,"rdma_device":"","memory_buffer_metas_list":[{"ptr":1,"size":2,
        "metas":[{"name":"a","dtype":"d","shape":[1],"aligned_size":4}]}]}}
        """#

    @Test(arguments: [
        "", "[]", "1", "{", #"{"a":\#(rank)}"#, #"{"-1":\#(rank)}"#, #"{"01":\#(rank)}"#,
        #"{"16777217":\#(rank)}"#, #"{"99999999999999999999":\#(rank)}"#, #"{"":\#(rank)}"#,
        #"{"0":[]}"#, #"{"0":{}}"#, #"{"0":null}"#, #"{"0":\#(rank),"0":\#(rank)}"#,
        #"{"0":{"p2p_store_addr":1,"rdma_device":"","memory_buffer_metas_list":[]}}"#,
        #"{"0":{"p2p_store_addr":null,"rdma_device":null,"memory_buffer_metas_list":[]}}"#,
        #"{"0":{"p2p_store_addr":null,"rdma_device":"","memory_buffer_metas_list":{}}}"#,
        #"{"0":{"p2p_store_addr":null,"rdma_device":"","memory_buffer_metas_list":[1]}}"#,
        #"{"0":{"rdma_device":"","memory_buffer_metas_list":[]}}"#,
        String(repeating: "[", count: 300),
    ])
    func whatIsNoneIsRefused(_ text: String) {
        let error = #expect(throws: EngineError.self) {
            try MetasDocument(json: Array(text.utf8))
        }
        #expect(error?.code == .invalidArgument)
        #expect(error?.message.contains("the metas cannot be read") == true)
    }

    @Test(arguments: [
        (#""ptr":1"#, #""ptr":"1""#), (#""ptr":1"#, #""ptr":9223372036854775808"#),
        (#""size":2"#, #""size":2.5"#), (#""shape":[1]"#, #""shape":[-1]"#),
        (#""shape":[1]"#, #""shape":["1"]"#), (#""shape":[1]"#, #""shape":1"#),
        (#""aligned_size":4"#, #""aligned_size":null"#), (#""name":"a","#, ""),
        (#""dtype":"d""#, #""dtype":5"#), (#""size":2,"#, ""),
        (#""rdma_device":"""#, #""rdma_device":"","checkpoint_engine":null"#),
        (#""rdma_device":"""#, #""rdma_device":"","checkpoint_engine":{"url":"http://a"}"#),
        (#""rdma_device":"""#, #""rdma_device":"","checkpoint_engine":{"url":1,"checkpoint":"a"}"#),
    ])
    func wrongMembersAreRefused(_ right: String, _ wrong: String) throws {
        #expect(throws: Never.self) { try MetasDocument(json: Array(Self.buffered.utf8)) }
        let changed = Self.buffered.replacing(right, with: wrong)
        try #require(changed != Self.buffered)
        #expect(throws: EngineError.self) { try MetasDocument(json: Array(changed.utf8)) }
    }

    @Test func cutTextsAreRefused() {
        let bytes = Array(Self.buffered.utf8)
        for count in 0..<bytes.count {
            #expect(throws: EngineError.self) {
                try MetasDocument(json: Array(bytes.prefix(count)))
            }
        }
    }
}
