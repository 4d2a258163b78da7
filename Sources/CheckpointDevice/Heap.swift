import CNative

/// The process's own memory, which a daemon keeps small between its updates.
public enum Heap {
    private static let largeByteCount: CInt = 1 << 20

    /// Lets large blocks go back to the system as soon as they are freed. Called once, in `main`.
    public static func returnLargeBlocks() { ce_heap_threshold(largeByteCount) }

    /// Gives freed memory back to the system, after work that needed much of it for a moment.
    public static func trim() { ce_trim_heap() }
}
