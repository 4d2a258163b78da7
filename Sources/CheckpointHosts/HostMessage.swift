/// What the daemons of several hosts say to each other. Host 0 is the hub: every other host is connected
/// to it, and to it alone.
enum HostMessage: Hashable, Sendable {
    /// The first message of a host to the hub.
    case hello(host: Int, hostCount: Int, name: String, token: String)
    /// The hub has taken a host; `names` are those of all hosts by rank, empty where it knows none.
    case welcome(names: [String])
    /// What a host contributes to an exchange.
    case put(key: String, payload: [UInt8])
    /// The host no longer waits for the exchange.
    case withdraw(key: String)
    /// What all hosts have contributed, by rank.
    case all(key: String, payloads: [[UInt8]])
    /// A host has ended everything of this scope.
    case end(scope: String, host: Int, reason: String)
    /// Nothing: the connection lives.
    case ping
}
