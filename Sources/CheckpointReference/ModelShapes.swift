public import CheckpointModel

/// The tensors of known models, as their checkpoints have them. `Benchmarks/shapes.py` has the same.
public struct ModelShapes: Sendable {
    public struct Tensor: Hashable, Sendable {
        public let name: String
        public let dtype: DType
        public let dimensions: [Int]

        public init(_ name: String, _ dtype: DType, _ dimensions: [Int]) {
            self.name = name
            self.dtype = dtype
            self.dimensions = dimensions
        }

        public var byteCount: Int { dimensions.reduce(1, *) * dtype.bitWidth / 8 }
    }

    public enum Model: String, CaseIterable, Sendable {
        case qwen3Dense = "qwen3-32b"
        case qwen3Mixture = "qwen3-30b-a3b"
        case deepSeek = "deepseek-v3-fp8"

        /// Decoder layers of the real model.
        public var layerCount: Int {
            switch self {
            case .qwen3Dense: 64
            case .qwen3Mixture: 48
            case .deepSeek: 61
            }
        }

        private var hidden: Int {
            switch self {
            case .qwen3Dense: 5120
            case .qwen3Mixture: 2048
            case .deepSeek: 7168
            }
        }

        private var vocabulary: Int { self == .deepSeek ? 129_280 : 151_936 }

        private func layer(_ index: Int) -> [Tensor] {
            let norms = ["input_layernorm.weight", "post_attention_layernorm.weight"].map {
                Tensor($0, .bf16, [hidden])
            }
            switch self {
            case .qwen3Dense:
                return norms + ModelShapes.attention(hidden, heads: 64, keyHeads: 8)
                    + ModelShapes.perceptron("mlp", hidden, 25_600)
            case .qwen3Mixture:
                return norms + ModelShapes.attention(hidden, heads: 32, keyHeads: 4)
                    + [Tensor("mlp.gate.weight", .bf16, [128, hidden])]
                    + (0..<128).flatMap {
                        ModelShapes.perceptron("mlp.experts.\($0)", hidden, 768)
                    }
            case .deepSeek:
                return norms + ModelShapes.deepSeekLayer(index, hidden)
            }
        }

        /// The tensors of the model with `layerCount` decoder layers.
        public func tensors(layerCount: Int) -> [Tensor] {
            [Tensor("model.embed_tokens.weight", .bf16, [vocabulary, hidden])]
                + (0..<layerCount).flatMap { index in
                    layer(index).map {
                        Tensor("model.layers.\(index).\($0.name)", $0.dtype, $0.dimensions)
                    }
                } + [
                    Tensor("model.norm.weight", .bf16, [hidden]),
                    Tensor("lm_head.weight", .bf16, [vocabulary, hidden]),
                ]
        }
    }

    private static func perceptron(_ prefix: String, _ hidden: Int, _ intermediate: Int)
        -> [Tensor]
    {
        [
            Tensor("\(prefix).gate_proj.weight", .bf16, [intermediate, hidden]),
            Tensor("\(prefix).up_proj.weight", .bf16, [intermediate, hidden]),
            Tensor("\(prefix).down_proj.weight", .bf16, [hidden, intermediate]),
        ]
    }

    private static func attention(_ hidden: Int, heads: Int, keyHeads: Int) -> [Tensor] {
        let width = 128
        return [
            Tensor("self_attn.q_proj.weight", .bf16, [heads * width, hidden]),
            Tensor("self_attn.k_proj.weight", .bf16, [keyHeads * width, hidden]),
            Tensor("self_attn.v_proj.weight", .bf16, [keyHeads * width, hidden]),
            Tensor("self_attn.o_proj.weight", .bf16, [hidden, heads * width]),
            Tensor("self_attn.q_norm.weight", .bf16, [width]),
            Tensor("self_attn.k_norm.weight", .bf16, [width]),
        ]
    }

    /// FP8 weights, each followed by one factor for every block of 128 by 128.
    private static func scaled(_ tensors: [Tensor]) -> [Tensor] {
        tensors.flatMap { tensor in
            [
                Tensor(tensor.name, .f8e4m3, tensor.dimensions),
                Tensor(
                    "\(tensor.name)_scale_inv", .f32, tensor.dimensions.map { ($0 + 127) / 128 }),
            ]
        }
    }

    private static func deepSeekLayer(_ index: Int, _ hidden: Int) -> [Tensor] {
        let (heads, queryRank, keyRank, rope, plain, value) = (128, 1536, 512, 64, 128, 128)
        let attention: [(String, [Int])] = [
            ("q_a_proj", [queryRank, hidden]), ("q_b_proj", [heads * (plain + rope), queryRank]),
            ("kv_a_proj_with_mqa", [keyRank + rope, hidden]),
            ("kv_b_proj", [heads * (plain + value), keyRank]), ("o_proj", [hidden, heads * value]),
        ]
        let common =
            scaled(attention.map { Tensor("self_attn.\($0.0).weight", .f8e4m3, $0.1) }) + [
                Tensor("self_attn.q_a_layernorm.weight", .bf16, [queryRank]),
                Tensor("self_attn.kv_a_layernorm.weight", .bf16, [keyRank]),
            ]
        if index < 3 { return common + scaled(perceptron("mlp", hidden, 18_432)) }
        return common + [
            Tensor("mlp.gate.weight", .bf16, [256, hidden]),
            Tensor("mlp.gate.e_score_correction_bias", .f32, [256]),
        ]
            + (0..<256).flatMap { scaled(perceptron("mlp.experts.\($0)", hidden, 2048)) }
            + scaled(perceptron("mlp.shared_experts", hidden, 2048))
    }
}
