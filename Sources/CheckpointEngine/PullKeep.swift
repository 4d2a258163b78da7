/// Whether a checkpoint that is read from other hosts stays on this one.
public enum PullKeep: String, Sendable, CaseIterable {
    /// It needs memory for all its bytes.
    case always
    /// It passes through a ring.
    case never
    /// It passes through a ring where there is no memory for all its bytes.
    case whenItFits = "auto"
}
