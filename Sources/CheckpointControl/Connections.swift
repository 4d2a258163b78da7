import NIOCore
import Synchronization

/// The connections of a server, with the channels that they are.
final class Connections: Sendable {
    private struct State {
        var places: ConnectionPlaces
        var channels: [ObjectIdentifier: any Channel] = [:]
    }

    private let state: Mutex<State>
    let limits: ConnectionPlaces.Limits

    init(limits: ConnectionPlaces.Limits) {
        self.limits = limits
        state = Mutex(State(places: ConnectionPlaces(limits: limits)))
    }

    /// Takes a new one, and closes another one for it where there is no place.
    func open(_ channel: any Channel) {
        let id = ObjectIdentifier(channel)
        let closing = state.withLock { state -> (any Channel)? in
            state.channels[id] = channel
            return state.places.open(id).flatMap { state.channels[$0] }
        }
        closing?.close(promise: nil)
    }

    /// Gives the connection a place of the party; throws where there is none.
    func recognise(_ channel: any Channel, as party: Party) throws(ControlError) {
        let id = ObjectIdentifier(channel)
        let (recognition, closing) = state.withLock {
            state -> (ConnectionPlaces.Recognition, (any Channel)?) in
            let recognition = state.places.recognise(id, as: party)
            guard case .admitted(let other?) = recognition else { return (recognition, nil) }
            return (recognition, state.channels[other])
        }
        closing?.close(promise: nil)
        guard case .full = recognition else { return }
        throw ControlError(
            .overloaded,
            "\(limits[party]) connections wait for answers already, as many as the daemon keeps for "
                + "callers of this kind: ask again when some have ended. The limit of open files "
                + "(ulimit -n) decides how many there are")
    }

    func isStranger(_ channel: any Channel) -> Bool {
        state.withLock { $0.places.party(of: ObjectIdentifier(channel)) ?? .stranger } == .stranger
    }

    func begin(_ channel: any Channel) {
        state.withLock { $0.places.begin(ObjectIdentifier(channel)) }
    }

    func end(_ channel: any Channel) {
        state.withLock { $0.places.end(ObjectIdentifier(channel)) }
    }

    func close(_ channel: any Channel) {
        state.withLock { state in
            let id = ObjectIdentifier(channel)
            state.channels[id] = nil
            state.places.close(id)
        }
    }
}
