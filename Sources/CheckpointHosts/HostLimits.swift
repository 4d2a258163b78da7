/// The most that a host takes from another one.
enum HostLimits {
    /// A header before its sender has shown that it belongs to the group.
    static let greetingByteCountMax = 16 << 10
    /// A header of a member; reasons with the tracebacks of workers are the longest.
    static let headerByteCountMax = 1 << 20
    /// What a host contributes to an exchange; a catalog of two million tensors is the longest.
    static let payloadByteCountMax = 512 << 20
    /// A message with what all hosts contribute.
    static let frameByteCountMax = 1 << 30
    /// Exchanges that a host takes part in at a time.
    static let exchangeCountMax = 64
    /// Connections that have not shown yet that they belong to the group; the oldest gives way.
    static let strangerCountMax = 64
    static let hostCountMax = 4096
}
