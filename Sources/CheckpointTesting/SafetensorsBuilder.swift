public import CheckpointModel

/// Writes safetensors bytes for tests, right or wrong, without any check.
public enum SafetensorsBuilder {
    /// The bytes of a file with this JSON as its header and these data.
    public static func file(header: String, data: [UInt8]) -> [UInt8] {
        let json = Array(header.utf8)
        let length = (0..<8).map { UInt8(truncatingIfNeeded: json.count >> (8 * $0)) }
        return length + json + data
    }

    /// The header that describes the tensors of one shard, padded with spaces to eight bytes.
    public static func header(
        _ tensors: [TensorEntry], metadata: [(String, String)] = []
    ) -> String {
        var members: [String] = []
        if !metadata.isEmpty {
            let pairs = metadata.map { "\"\($0.0)\":\"\($0.1)\"" }.joined(separator: ",")
            members.append("\"__metadata__\":{\(pairs)}")
        }
        members += tensors.map { tensor in
            let shape = tensor.shape.dimensions.map(String.init).joined(separator: ",")
            return
                "\"\(tensor.name)\":{\"dtype\":\"\(tensor.dtype.rawValue)\",\"shape\":[\(shape)],"
                + "\"data_offsets\":[\(tensor.range.offset),\(tensor.range.end)]}"
        }
        let json = "{" + members.joined(separator: ",") + "}"
        return json + String(repeating: " ", count: (8 - json.utf8.count % 8) % 8)
    }

    /// The file of one shard of `catalog`, its data random.
    public static func file(
        _ catalog: Catalog, shard: Int, using generator: inout SeededGenerator
    ) -> [UInt8] {
        let tensors = catalog.tensors.filter { $0.shard == shard }
        let data = (0..<catalog.shards[shard].byteCount).map { _ in
            UInt8.random(in: 0...255, using: &generator)
        }
        return file(header: header(tensors), data: data)
    }
}
