/// Who keeps which of a daemon's connections: a state machine without clock and I/O.
///
/// Each party has places of its own, so that nobody takes those of another. A connection belongs to a
/// stranger until a request on it has shown more. When a party's places are taken, its connection that
/// has been idle for the longest makes room.
struct ConnectionPlaces {
    /// How many connections each party may have.
    struct Limits: Hashable, Sendable {
        var strangers: Int
        var readers: Int
        var administrators: Int

        /// Shares of the descriptors that the process may open; the larger part is for its work.
        init(descriptorCountMax: Int) {
            strangers = min(128, max(4, descriptorCountMax / 16))
            readers = min(4096, max(4, descriptorCountMax / 4))
            administrators = min(1024, max(4, descriptorCountMax / 8))
        }

        var total: Int { strangers + readers + administrators }

        subscript(party: Party) -> Int {
            switch party {
            case .stranger: strangers
            case .reader: readers
            case .administrator: administrators
            }
        }
    }

    /// What becomes of a connection that shows who it is.
    enum Recognition: Equatable {
        /// It has a place; the other one, if any, has to be closed for it.
        case admitted(closing: ObjectIdentifier?)
        /// All places of its party are taken, and all are in use.
        case full
    }

    private struct Connection {
        /// When it came or was last in use, counted in events.
        var lastUse: UInt64
        /// Requests that have no answer yet.
        var requests = 0
    }

    let limits: Limits
    private var members: [Party: [ObjectIdentifier: Connection]] = [:]
    private var events: UInt64 = 0

    init(limits: Limits) {
        self.limits = limits
    }

    func count(of party: Party) -> Int { members[party]?.count ?? 0 }

    /// Whose connection it is; `nil` for one that is not known, or was closed for another.
    func party(of id: ObjectIdentifier) -> Party? {
        Party.allCases.first { members[$0]?[id] != nil }
    }

    /// A connection has been made; tells which one has to be closed for it. Of strangers that is the
    /// oldest, if all of them are waiting for an answer: answers to strangers take no time.
    mutating func open(_ id: ObjectIdentifier) -> ObjectIdentifier? {
        var closing: ObjectIdentifier?
        if count(of: .stranger) >= limits.strangers {
            closing = longestIdle(.stranger) ?? oldest(.stranger)
        }
        if let closing { close(closing) }
        members[.stranger, default: [:]][id] = Connection(lastUse: nextEvent())
        return closing
    }

    /// A request on the connection has shown that it is the party's.
    mutating func recognise(_ id: ObjectIdentifier, as party: Party) -> Recognition {
        guard let known = self.party(of: id), known != party else {
            return .admitted(closing: nil)
        }
        var closing: ObjectIdentifier?
        if count(of: party) >= limits[party] {
            closing = longestIdle(party)
            guard let closing else { return .full }
            close(closing)
        }
        if let connection = members[known]?.removeValue(forKey: id) {
            members[party, default: [:]][id] = connection
        }
        return .admitted(closing: closing)
    }

    /// A request has begun on the connection.
    mutating func begin(_ id: ObjectIdentifier) { use(id, 1) }

    /// A request on the connection has its answer.
    mutating func end(_ id: ObjectIdentifier) { use(id, -1) }

    /// The connection is gone.
    mutating func close(_ id: ObjectIdentifier) {
        guard let party = party(of: id) else { return }
        members[party]?[id] = nil
    }

    private mutating func use(_ id: ObjectIdentifier, _ change: Int) {
        guard let party = party(of: id) else { return }
        let event = nextEvent()
        members[party]?[id]?.requests += change
        members[party]?[id]?.lastUse = event
    }

    private mutating func nextEvent() -> UInt64 {
        events += 1
        return events
    }

    private func longestIdle(_ party: Party) -> ObjectIdentifier? {
        members[party]?.filter { $0.value.requests == 0 }
            .min { $0.value.lastUse < $1.value.lastUse }?.key
    }

    private func oldest(_ party: Party) -> ObjectIdentifier? {
        members[party]?.min { $0.value.lastUse < $1.value.lastUse }?.key
    }
}
