import NIOCore

/// What comes over the connections.
extension HostGroup {
    private static let endedScopeCountMax = 256

    func handle(_ event: HostChannelHandler.Event) {
        switch event {
        case .opened(let channel):
            guard !isHub else { return }
            peers[0] = channel
            channel.writeAndFlush(
                HostMessage.hello(
                    host: rank, hostCount: count, name: configuration.name,
                    token: configuration.token ?? ""), promise: nil)
        case .received(let channel, let message):
            if let host = host(of: channel) {
                received(message, from: host, channel)
            } else {
                greet(message, channel)
            }
        case .closed(let channel, let reason):
            guard let host = host(of: channel) else { return }
            peers[host] = nil
            lost(host, reason)
        }
    }

    private func host(of channel: any Channel) -> Int? {
        peers.first { $0.value === channel }?.key
    }

    /// The hub takes a host whose hello is right and whose place is free.
    private func greet(_ message: HostMessage, _ channel: any Channel) {
        guard isHub, case .hello(let host, let hostCount, let name, let token) = message,
            hostCount == count, (1..<count).contains(host), peers[host] == nil,
            Self.equal(token, configuration.token ?? "")
        else {
            channel.close(promise: nil)
            return
        }
        peers[host] = channel
        names[host] = name
        let welcome = HostMessage.welcome(names: (0..<count).map { names[$0] ?? "" })
        for channel in peers.values { channel.writeAndFlush(welcome, promise: nil) }
    }

    /// Compares in a time that tells nothing about where two texts differ.
    private static func equal(_ left: String, _ right: String) -> Bool {
        let left = Array(left.utf8)
        let right = Array(right.utf8)
        var difference = left.count ^ right.count
        for (index, byte) in left.enumerated() {
            difference |= Int(byte ^ (right.isEmpty ? 0 : right[index % right.count]))
        }
        return difference == 0
    }

    private func received(_ message: HostMessage, from host: Int, _ channel: any Channel) {
        switch message {
        case .welcome(let known) where !isHub && known.count == count:
            for (host, name) in known.enumerated() where !name.isEmpty { names[host] = name }
            sendWaiting(channel)
        case .put(let key, let payload) where isHub:
            exchanges[key, default: Exchange()].payloads[host] = payload
            completeIfReady(key)
        case .withdraw(let key) where isHub:
            exchanges[key]?.payloads[host] = nil
        case .all(let key, let payloads) where !isHub && payloads.count == count:
            finish(key, .success(payloads))
        case .end(let scope, let ending, let reason):
            ended(scope, host: isHub ? host : ending, reason: reason)
            if isHub { relay(message, except: host) }
        case .hello, .welcome, .put, .withdraw, .all, .ping:
            channel.close(promise: nil)
        }
    }

    /// What was to be sent before the hub was there.
    private func sendWaiting(_ hub: any Channel) {
        for key in exchanges.keys {
            if let payload = exchanges[key]?.payloads.removeValue(forKey: rank) {
                hub.writeAndFlush(HostMessage.put(key: key, payload: payload), promise: nil)
            }
        }
    }

    private func relay(_ message: HostMessage, except host: Int) {
        for (other, channel) in peers where other != host {
            channel.writeAndFlush(message, promise: nil)
        }
    }

    func ended(_ scope: String, host: Int, reason: String) {
        guard endedScopes[scope] == nil else { return }
        let text = "\(hostName(host)) failed: \(reason)"
        // What is told of scopes that are over already is kept by nobody.
        if endedScopes.count >= Self.endedScopeCountMax { endedScopes = [:] }
        endedScopes[scope] = text
        let error = HostError(.hostFailed, text)
        for key in exchanges.keys where key.hasPrefix("\(scope)/") {
            finish(key, .failure(error))
        }
        if host != rank { watchers.removeValue(forKey: scope)?(error) }
    }

    /// Every exchange that waits, and everything that is watched, needs all hosts.
    private func lost(_ host: Int, _ reason: String) {
        let name = hostName(host)
        let error = HostError(.hostLost, "\(name) is lost: \(reason)")
        for (key, exchange) in exchanges {
            // A host that comes late finds what others have contributed before.
            if exchange.payloads[host] != nil { exchanges[key]?.payloads[host] = nil }
        }
        let scopes = watchers.keys
        for scope in scopes {
            for key in exchanges.keys where key.hasPrefix("\(scope)/") {
                finish(key, .failure(error))
            }
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
