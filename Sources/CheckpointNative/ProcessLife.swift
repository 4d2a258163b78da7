public import Glibc

/// Whether other processes of this machine live.
public enum ProcessLife {
    /// Whether there is no process of that id any more.
    public static func isGone(_ id: pid_t) -> Bool { kill(id, 0) != 0 && errno == ESRCH }
}
