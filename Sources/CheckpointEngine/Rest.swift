/// Waits that a cancelled task keeps: what it waits for has to happen before it may end.
enum Rest {
    /// Sleeps for so long; `Task.sleep` returns at once where the task was cancelled, and a loop around it
    /// would take a core.
    static func take(_ duration: Duration) async {
        // A task of its own is not cancelled with its maker.
        await Task { try? await Task.sleep(for: duration) }.value
    }
}
