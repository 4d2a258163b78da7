import CheckpointJSON
import CheckpointModel
import CheckpointPull

extension MetasDocument {
    static let byteCountMax = 256 << 20
    private static let limits = JSONLimits(
        byteCountMax: byteCountMax, depthMax: 8, stringByteCountMax: 64 << 10)
    private static let rankMax = 1 << 24

    /// Reads what this package or PyPI's has written; keys that neither has are passed over.
    public init(json bytes: [UInt8]) throws(EngineError) {
        do throws(JSONError) {
            guard case .object(let object) = try JSONValue.parse(bytes, limits: Self.limits) else {
                throw JSONError(.unexpectedKind, "the text is not an object")
            }
            var ranks: [Int: Rank] = [:]
            for key in object.keys {
                guard let rank = Int(key), String(rank) == key, (0...Self.rankMax).contains(rank),
                    case .object(let values)? = object[key]
                else {
                    throw JSONError(
                        .unexpectedKind, "the key \(JSONError.quoted(key)) is no rank's")
                }
                ranks[rank] = try Rank(values)
            }
            self.init(ranks: ranks)
        } catch {
            throw EngineError(.invalidArgument, "the metas cannot be read: \(error)")
        }
    }
}

extension MetasDocument.Rank {
    init(_ object: JSONObject) throws(JSONError) {
        var reader = JSONObjectReader(object)
        let address = try reader.value("p2p_store_addr")
        var buffers: [MetasDocument.Buffer] = []
        for value in try reader.array("memory_buffer_metas_list") {
            guard case .object(let buffer) = value else {
                throw JSONError(.unexpectedKind, "a buffer is not an object")
            }
            buffers.append(try MetasDocument.Buffer(buffer))
        }
        self.init(
            p2pStoreAddress: try Self.text(address), buffers: buffers,
            rdmaDevice: try reader.string("rdma_device"),
            source: try object["checkpoint_engine"].map { value throws(JSONError) in
                guard case .object(let source) = value else {
                    throw JSONError(.unexpectedKind, "\"checkpoint_engine\" is not an object")
                }
                return try MetasDocument.Source(source)
            })
    }

    private static func text(_ value: JSONValue) throws(JSONError) -> String? {
        switch value {
        case .null: return nil
        case .string(let text): return text
        default: throw JSONError(.unexpectedKind, "\"p2p_store_addr\" is no text and not null")
        }
    }
}

extension MetasDocument.Source {
    init(_ object: JSONObject) throws(JSONError) {
        var reader = JSONObjectReader(object)
        let url = try reader.string("url")
        let address: SourceAddress
        do throws(AddressFlaw) {
            address = try SourceAddress(url: url)
        } catch {
            throw JSONError(.unexpectedKind, "a daemon's \"url\": \(error)")
        }
        self.init(
            url: address.url, checkpoint: try reader.string("checkpoint"),
            content: try object["content"].map { value throws(JSONError) in
                guard case .string(let text) = value else {
                    throw JSONError(.unexpectedKind, "\"content\" is no text")
                }
                return text
            })
    }
}

extension MetasDocument.Buffer {
    init(_ object: JSONObject) throws(JSONError) {
        var reader = JSONObjectReader(object)
        var metas: [MetasDocument.Parameter] = []
        for value in try reader.array("metas") {
            guard case .object(let parameter) = value else {
                throw JSONError(.unexpectedKind, "a tensor's meta is not an object")
            }
            metas.append(try MetasDocument.Parameter(parameter))
        }
        self.init(
            metas: metas, ptr: try reader.integer("ptr", in: 0...(1 << 62)),
            size: try reader.integer("size", in: ByteCount.range))
    }
}

extension MetasDocument.Parameter {
    init(_ object: JSONObject) throws(JSONError) {
        var reader = JSONObjectReader(object)
        var shape: [Int] = []
        for value in try reader.array("shape") {
            guard case .integer(let integer) = value,
                let dimension = integer.value(in: 0...Int.max)
            else { throw JSONError(.unexpectedKind, "a dimension is no number from 0 on") }
            shape.append(dimension)
        }
        self.init(
            name: try reader.string("name"), dtype: try reader.string("dtype"), shape: shape,
            alignedSize: try reader.integer("aligned_size", in: ByteCount.range))
    }
}
