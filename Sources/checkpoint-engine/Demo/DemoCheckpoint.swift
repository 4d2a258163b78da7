import CheckpointJSON
import CheckpointModel
import Glibc

/// A made-up checkpoint with the names and proportions of a small Qwen3, filled with pseudo-random bytes.
struct DemoCheckpoint {
    struct Failure: Error, CustomStringConvertible {
        let description: String
    }

    private static let layerCount = 8
    private static let hidden = 1024
    private static let intermediate = 3072
    private static let vocabulary = 16_384

    /// One list of tensors for each file.
    static let shards: [[(name: String, dimensions: [Int])]] = {
        let layers: [[(name: String, dimensions: [Int])]] = (0..<layerCount).map { layer in
            let prefix = "model.layers.\(layer)"
            return [
                ("\(prefix).input_layernorm.weight", [hidden]),
                ("\(prefix).mlp.down_proj.weight", [hidden, intermediate]),
                ("\(prefix).mlp.gate_proj.weight", [intermediate, hidden]),
                ("\(prefix).mlp.up_proj.weight", [intermediate, hidden]),
                ("\(prefix).self_attn.k_proj.weight", [hidden / 2, hidden]),
                ("\(prefix).self_attn.o_proj.weight", [hidden, hidden]),
                ("\(prefix).self_attn.q_proj.weight", [hidden, hidden]),
                ("\(prefix).self_attn.v_proj.weight", [hidden / 2, hidden]),
            ]
        }
        return [
            [("lm_head.weight", [vocabulary, hidden])] + layers[..<(layerCount / 2)].joined(),
            [("model.embed_tokens.weight", [vocabulary, hidden])]
                + layers[(layerCount / 2)...].joined() + [("model.norm.weight", [hidden])],
        ]
    }()

    /// Writes the files into `directory`, the bytes decided by `seed`; returns their paths.
    static func write(to directory: String, seed: UInt64) throws -> [String] {
        var generator = SplitMix64(state: seed)
        return try shards.enumerated().map { index, tensors in
            let path = "\(directory)/model-0000\(index + 1)-of-0000\(shards.count).safetensors"
            try write(tensors, to: path, using: &generator)
            return path
        }
    }

    private static func write(
        _ tensors: [(name: String, dimensions: [Int])], to path: String,
        using generator: inout SplitMix64
    ) throws {
        var offset = 0
        let fields = tensors.map { tensor -> (String, JSONValue) in
            let byteCount = tensor.dimensions.reduce(2, *)
            defer { offset += byteCount }
            let value = JSONObject([
                ("dtype", .string(DType.bf16.rawValue)),
                ("shape", .array(tensor.dimensions.map(JSONValue.integer))),
                ("data_offsets", .array([.integer(offset), .integer(offset + byteCount)])),
            ])
            return (tensor.name, .object(value))
        }
        var header = JSONValue.object(JSONObject(fields)).encoded()
        while header.count % 8 != 0 { header.append(UInt8(ascii: " ")) }
        let length = (0..<8).map { UInt8(truncatingIfNeeded: header.count >> (8 * $0)) }
        var words = [UInt64](repeating: 0, count: offset / 8 + 1)
        for place in words.indices { words[place] = generator.next() }
        guard let file = unsafe fopen(path, "wxe") else {
            throw Failure(description: "cannot make \(path): errno \(errno)")
        }
        defer { unsafe fclose(file) }
        let start = length + header
        // SAFETY: each call reads the bytes of an array that outlives it; `words` has at least `offset`.
        let written = unsafe start.withUnsafeBytes {
            unsafe fwrite($0.baseAddress, 1, $0.count, file)
        }
        let body = unsafe words.withUnsafeBytes {
            unsafe fwrite($0.baseAddress, 1, offset, file)
        }
        guard written == start.count, body == offset, unsafe fflush(file) == 0 else {
            throw Failure(description: "cannot write \(path): errno \(errno)")
        }
    }
}

/// The generator SplitMix64 (Steele, Lea, Flood): fast, and the same everywhere.
struct SplitMix64: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
        return mixed ^ (mixed >> 31)
    }
}
