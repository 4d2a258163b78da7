/// Names that every process of the project shares.
public enum PoolNames {
    /// How the private directories start: `checkpoint-engine-UID-PID-RANDOM`.
    public static let prefix = "checkpoint-engine"
    /// Those of a demonstration.
    public static let demoPrefix = "checkpoint-engine-demo"
    /// Those of a benchmark.
    public static let benchPrefix = "checkpoint-engine-bench"
}
