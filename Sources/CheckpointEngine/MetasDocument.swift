/// The global metas in the JSON form that the PyPI package reads and writes from 0.4.2 on: which rank
/// holds which tensors, in buffers of what size.
public struct MetasDocument: Codable, Hashable, Sendable {
    public struct Parameter: Codable, Hashable, Sendable {
        public let name: String
        /// `torch.bfloat16`, …
        public let dtype: String
        public let shape: [Int]
        /// Bytes that the tensor takes in its buffer, up to the next tensor.
        public let alignedSize: Int

        enum CodingKeys: String, CodingKey {
            case name, dtype, shape
            case alignedSize = "aligned_size"
        }
    }

    public struct Buffer: Codable, Hashable, Sendable {
        public let metas: [Parameter]
        /// The buffer's address in the process that holds it; zero while no peer may read it.
        public let ptr: Int
        public let size: Int
    }

    /// The daemon that holds a rank's buffers. PyPI's package passes it over.
    public struct Source: Codable, Hashable, Sendable {
        /// `http://host:port`.
        public let url: String
        /// The checkpoint's name there.
        public let checkpoint: String
        /// Names its bytes, where they were known when the metas were gathered.
        public let content: String?

        public init(url: String, checkpoint: String, content: String? = nil) {
            self.url = url
            self.checkpoint = checkpoint
            self.content = content
        }
    }

    public struct Rank: Codable, Hashable, Sendable {
        /// `null` where no peer may read: the key is always there.
        public let p2pStoreAddress: String?
        public let buffers: [Buffer]
        public let rdmaDevice: String
        public let source: Source?

        enum CodingKeys: String, CodingKey {
            case p2pStoreAddress = "p2p_store_addr"
            case buffers = "memory_buffer_metas_list"
            case rdmaDevice = "rdma_device"
            case source = "checkpoint_engine"
        }

        public init(
            p2pStoreAddress: String?, buffers: [Buffer], rdmaDevice: String, source: Source? = nil
        ) {
            self.p2pStoreAddress = p2pStoreAddress
            self.buffers = buffers
            self.rdmaDevice = rdmaDevice
            self.source = source
        }

        public func encode(to encoder: any Encoder) throws {
            var container = encoder.container(keyedBy: CodingKeys.self)
            try container.encode(p2pStoreAddress, forKey: .p2pStoreAddress)
            try container.encode(buffers, forKey: .buffers)
            try container.encode(rdmaDevice, forKey: .rdmaDevice)
            try container.encodeIfPresent(source, forKey: .source)
        }
    }

    /// By rank.
    public let ranks: [Int: Rank]

    public init(ranks: [Int: Rank]) { self.ranks = ranks }

    public init(from decoder: any Decoder) throws {
        ranks = try [Int: Rank](from: decoder)
    }

    public func encode(to encoder: any Encoder) throws {
        try ranks.encode(to: encoder)
    }
}
