/// What the engine tells about one registered checkpoint.
public struct CheckpointSummary: Codable, Hashable, Sendable {
    public enum State: String, Codable, Sendable {
        /// Its bytes are being read into shared memory.
        case registering
        /// Its bytes are being read from other hosts; it can be delivered, as they arrive.
        case pulling
        /// It can be delivered.
        case ready
        /// An update from it is running.
        case updating
    }

    public let name: String
    public let state: State
    public let tensors: Int
    public let files: Int
    /// Bytes of all tensors.
    public let bytes: Int
    /// Bytes that lie in the daemon's own shared memory; zero where all files are used in place.
    public let pooledBytes: Int
    /// Bytes of files in shared memory that are used in place.
    public let inPlaceBytes: Int
    /// Tensors by safetensors dtype.
    public let dtypes: [String: Int]
    /// How long the registration took, or has taken so far.
    public let registerSeconds: Double
    /// Bytes registered so far.
    public let registeredBytes: Int
    /// The checkpoints that it consists of; empty for one with bytes of its own.
    public let parts: [String]
    /// Whether it stays: one that is read from other hosts may pass through on its way into engines.
    public let kept: Bool

    enum CodingKeys: String, CodingKey {
        case name, state, tensors, files, bytes, dtypes, parts, kept
        case pooledBytes = "pooled_bytes"
        case inPlaceBytes = "in_place_bytes"
        case registerSeconds = "register_seconds"
        case registeredBytes = "registered_bytes"
    }
}
