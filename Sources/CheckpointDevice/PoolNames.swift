/// What belongs to a process of this program is recognised by its name.
public enum PoolNames {
    /// How the private directories start: `checkpoint-engine-UID-PID-RANDOM`.
    public static let prefix = "checkpoint-engine"
    /// Those of sockets, whose paths the system limits.
    public static let socketPrefix = "ce"
    /// Those of a demonstration.
    public static let demoPrefix = "checkpoint-engine-demo"
    /// Those of a benchmark.
    public static let benchPrefix = "checkpoint-engine-bench"

    public static let all = [prefix, socketPrefix, demoPrefix, benchPrefix]
}
