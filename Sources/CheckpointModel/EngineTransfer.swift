/// How weights get into the workers of an engine.
public enum EngineTransfer: String, Hashable, Sendable, CaseIterable, Codable {
    /// Our worker extension, or another worker of its protocols, takes them over CUDA IPC.
    case workerExtension = "worker-extension"
    /// vLLM's own weight transfer: a GPU of the daemon's broadcasts to all workers over NCCL.
    case vllmNative = "vllm-native"
}
