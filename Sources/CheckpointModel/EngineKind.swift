/// Which inference engine answers at an address: its HTTP calls and their meaning differ.
public enum EngineKind: String, Hashable, Sendable, CaseIterable, Codable {
    case vllm
    case sglang

    /// What people call it.
    public var title: String {
        switch self {
        case .vllm: "vLLM"
        case .sglang: "SGLang"
        }
    }
}
