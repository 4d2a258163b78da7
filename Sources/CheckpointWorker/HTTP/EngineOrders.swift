public import CheckpointModel

/// What an engine is asked for besides the weights.
public struct EngineOrders: Hashable, Sendable {
    /// `nil` leaves the engine's requests alone.
    public let pause: PauseMode?
    /// The new name of the weights; `nil` leaves it.
    public let weightVersion: String?
    /// Whether memory that a sleeping engine has given up is taken back.
    public let wakes: Bool
    /// Whether the prefix cache is emptied.
    public let resetsPrefixCache: Bool

    public init(
        pause: PauseMode? = nil, weightVersion: String? = nil, wakes: Bool = false,
        resetsPrefixCache: Bool = true
    ) {
        self.pause = pause
        self.weightVersion = weightVersion
        self.wakes = wakes
        self.resetsPrefixCache = resetsPrefixCache
    }
}
