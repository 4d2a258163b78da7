/// What happens to the requests of an engine while an update is made.
public enum PauseMode: String, Hashable, Sendable, CaseIterable, Codable {
    /// They are ended.
    case abort
    /// They run to their end first.
    case wait
    /// They stand still, and go on with the new weights.
    case keep
}
