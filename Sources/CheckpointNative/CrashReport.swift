import CNative

/// What the process says when a trap or another fatal signal ends it.
public enum CrashReport {
    /// From now on such a signal leaves two lines on standard error: which one, where, in which thread, and the
    /// addresses of the calls. The process ends by the signal as before. `program` is its name and version;
    /// to be called once, by the main thread.
    public static func install(_ program: String) {
        // SAFETY: the bridged string lives for the call, which copies it.
        unsafe ce_crash_report(program)
    }
}
