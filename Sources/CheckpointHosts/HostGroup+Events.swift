import NIOCore

/// What comes over the connections.
extension HostGroup {
    private static let endedScopeCountMax = 256

    func handle(_ event: HostChannelHandler.Event) {
        switch event {
        case .opened(let connection):
            guard hub == nil else { return connection.close() }
            hub = connection
            connection.send(
                .hello(
                    host: rank, hostCount: count, name: configuration.name,
                    token: configuration.token ?? ""))
        case .received(let connection, let message):
            if isHub {
                if let host = host(of: connection) {
                    received(message, from: host, connection)
                } else {
                    greet(message, connection)
                }
            } else if connection === hub {
                received(message, fromHub: connection)
            }
            connection.handled(message)
        case .closed(let connection, let reason):
            if connection === hub { hub = nil }
            guard let host = host(of: connection) else { return }
            peers[host] = nil
            lost(host, reason)
        }
    }

    private func host(of connection: HostConnection) -> Int? {
        peers.first { $0.value === connection }?.key
    }

    // MARK: At the hub

    /// Takes a host whose hello is right and whose place is free.
    private func greet(_ message: HostMessage, _ connection: HostConnection) {
        guard case .hello(let host, let hostCount, let name, _) = message else {
            return connection.close()
        }
        guard hostCount == count, (1..<count).contains(host), peers[host] == nil else {
            let reason =
                hostCount == count
                ? "there is a host \(host) already, or there can be none"
                : "it has \(hostCount) hosts in its group, and host 0 has \(count)"
            connection.send(.refused(reason: reason))
            return connection.close()
        }
        peers[host] = connection
        names[host] = name
        let welcome = HostMessage.welcome(names: (0..<count).map { names[$0] ?? "" })
        for (other, peer) in peers where other != host { peer.send(welcome) }
        connection.welcome(welcome)
    }

    private func received(_ message: HostMessage, from host: Int, _ connection: HostConnection) {
        switch message {
        case .put(let key, let payload):
            guard hasRoom(for: payload, from: host) else { return connection.close() }
            exchanges[key, default: Exchange()].payloads[host] = payload
            completeIfReady(key)
        case .withdraw(let key, let reason):
            takeBack(key, of: host)
            guard let reason else { return }
            tellLeft(key, host: host, reason: reason)
            if exchanges[key]?.waiter != nil { leave(key, left(host, reason)) }
        case .end(let scope, _, let reason):
            ended(scope, host: host, reason: reason)
            relay(.end(scope: scope, host: host, reason: reason), except: host)
        case .hello, .welcome, .refused, .left, .all, .ping: connection.close()
        }
    }

    /// Whether a host may contribute so much beside what others still have to come for.
    private func hasRoom(for payload: [UInt8], from host: Int) -> Bool {
        let own = exchanges.values.compactMap { $0.payloads[host] }
        let byteCount = own.reduce(payload.count) { $0 + $1.count }
        return own.count < HostLimits.exchangeCountMax
            && byteCount <= HostLimits.payloadByteCountMax
    }

    private func relay(_ message: HostMessage, except host: Int) {
        for (other, connection) in peers where other != host { connection.send(message) }
    }

    // MARK: Elsewhere

    private func received(_ message: HostMessage, fromHub connection: HostConnection) {
        switch message {
        case .welcome(let known) where known.count == count:
            for (host, name) in known.enumerated() where !name.isEmpty { names[host] = name }
            refusal = nil
            guard peers[0] == nil else { return }
            peers[0] = connection
            sendWaiting(connection)
        case .refused(let reason): refusal = reason
        case .all(let key, let payloads) where payloads.count == count:
            // Else it is about what this host has contributed before, and has taken back.
            if payloads[rank] == exchanges[key]?.payloads[rank] { finish(key, payloads) }
        case .left(let key, let host, let reason):
            if exchanges[key] != nil { leave(key, left(host, reason)) }
        case .end(let scope, let host, let reason): ended(scope, host: host, reason: reason)
        case .hello, .welcome, .put, .withdraw, .all, .ping: connection.close()
        }
    }

    /// What the hub does not have, because it was not there or has lost this host.
    private func sendWaiting(_ hub: HostConnection) {
        for (key, exchange) in exchanges {
            if let payload = exchange.payloads[rank] { hub.send(.put(key: key, payload: payload)) }
        }
    }

    // MARK: Ends

    private func left(_ host: Int, _ reason: String) -> HostError {
        HostError(.hostFailed, "\(hostName(host)) has left: \(reason)")
    }

    func ended(_ scope: String, host: Int, reason: String) {
        guard endedScopes[scope] == nil else { return }
        let text = "\(hostName(host)) failed: \(reason)"
        // What is told of scopes that are over already is kept by nobody.
        if endedScopes.count >= Self.endedScopeCountMax { endedScopes = [:] }
        endedScopes[scope] = text
        let error = HostError(.hostFailed, text)
        for key in exchanges.keys where key.hasPrefix("\(scope)/") { leave(key, error) }
        if host != rank { watchers.removeValue(forKey: scope)?(error) }
    }

    /// Every exchange that waits, and everything that is watched, needs all hosts.
    private func lost(_ host: Int, _ reason: String) {
        let name = hostName(host)
        let error = HostError(.hostLost, "\(name) is lost: \(reason)")
        // A host that comes late finds what others have contributed before.
        for key in exchanges.keys where isHub { takeBack(key, of: host) }
        let scopes = watchers.keys
        for scope in scopes {
            for key in exchanges.keys where key.hasPrefix("\(scope)/") { leave(key, error) }
            endedScopes[scope] = error.message
            watchers.removeValue(forKey: scope)?(error)
            if isHub {
                relay(
                    .end(scope: scope, host: host, reason: "its connection was lost: \(reason)"),
                    except: host)
            }
        }
    }
}
