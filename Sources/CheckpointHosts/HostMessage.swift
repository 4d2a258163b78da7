/// What the daemons of several hosts say to each other. Host 0 is the hub: every other host is connected
/// to it, and to it alone.
enum HostMessage: Hashable, Sendable {
    /// The first message of a host to the hub. It sends nothing else but pings before it is welcome.
    case hello(host: Int, hostCount: Int, name: String, token: String)
    /// The hub has taken a host; `names` are those of all hosts by rank, empty where it knows none.
    case welcome(names: [String])
    /// The hub does not take who has said hello, and closes the connection.
    case refused(reason: String)
    /// What a host contributes to an exchange.
    case put(key: String, payload: [UInt8])
    /// The host no longer waits for the exchange. With a reason it has given up, and others that wait for it
    /// are told; else it may come back.
    case withdraw(key: String, reason: String?)
    /// A host that was waited for has given an exchange up.
    case left(key: String, host: Int, reason: String)
    /// What all hosts have contributed, by rank.
    case all(key: String, payloads: [[UInt8]])
    /// A host has ended everything of this scope.
    case end(scope: String, host: Int, reason: String)
    /// Nothing: the connection lives.
    case ping

    /// Bytes that it holds; no message counts for nothing.
    var byteCount: Int {
        switch self {
        case .put(_, let payload): Self.byteCountMin + payload.count
        case .all(_, let payloads): Self.byteCountMin + payloads.reduce(0) { $0 + $1.count }
        case .hello, .welcome, .refused, .withdraw, .left, .end, .ping: Self.byteCountMin
        }
    }

    private static let byteCountMin = 1024
}
