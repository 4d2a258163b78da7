import NIOCore
import NIOPosix

/// The daemons of several hosts as one group, seen from one of them: they exchange small payloads, all with
/// all, and learn when one of them has failed or is gone.
///
/// Host 0 is the hub. A host that loses its connection to it comes back by itself. The owner calls
/// ``close()`` in the end.
public actor HostGroup {
    public nonisolated let configuration: HostGroupConfiguration
    private let threads = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    private let events: AsyncStream<HostChannelHandler.Event>
    private let continuation: AsyncStream<HostChannelHandler.Event>.Continuation
    private var listener: (any Channel)?
    private var follower: Task<Void, Never>?
    private var connector: Task<Void, Never>?
    /// By rank: the hub has one for each other host, the others one for the hub.
    var peers: [Int: any Channel] = [:]
    var names: [Int: String] = [:]
    var exchanges: [String: Exchange] = [:]
    /// Why a scope has ended, and who wants to know.
    var endedScopes: [String: String] = [:]
    var watchers: [String: @Sendable (HostError) -> Void] = [:]

    /// One exchange: at the hub what has come, everywhere who waits.
    struct Exchange {
        var payloads: [Int: [UInt8]] = [:]
        var waiter: CheckedContinuation<Result<[[UInt8]], HostError>, Never>?
    }

    public nonisolated var rank: Int { configuration.hostRank }
    public nonisolated var count: Int { configuration.hostCount }
    nonisolated var isHub: Bool { rank == 0 }
    private static let reconnectInterval = Duration.milliseconds(200)

    public init(_ configuration: HostGroupConfiguration) throws(HostError) {
        guard configuration.hostCount >= 1,
            (0..<configuration.hostCount).contains(configuration.hostRank),
            (1...65_535).contains(configuration.port)
        else {
            throw HostError(
                .invalidArgument,
                "host \(configuration.hostRank) of \(configuration.hostCount) at port "
                    + "\(configuration.port) is impossible")
        }
        self.configuration = configuration
        (events, continuation) = AsyncStream.makeStream()
        names[configuration.hostRank] = configuration.name
    }

    /// Listens, or begins to connect. Returns at once; exchanges wait for the others.
    public func start() async throws(HostError) {
        let events = events
        follower = Task { [weak self] in
            for await event in events { await self?.handle(event) }
        }
        if isHub {
            try await listen()
        } else {
            connector = Task { [weak self] in await self?.stayConnected() }
        }
    }

    /// Leaves the group.
    public func close() async {
        connector?.cancel()
        for channel in peers.values { try? await channel.close() }
        try? await listener?.close()
        continuation.finish()
        await follower?.value
        for key in exchanges.keys { finish(key, .failure(Self.closed)) }
        try? await threads.shutdownGracefully()
    }

    private static let closed = HostError(.hostLost, "this host leaves the group")

    private func listen() async throws(HostError) {
        let continuation = continuation
        do {
            listener = try await ServerBootstrap(group: threads)
                .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
                .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
                .childChannelInitializer { HostChannels.configure($0, continuation) }
                .bind(host: configuration.address, port: configuration.port).get()
        } catch {
            throw HostError(
                .invalidArgument,
                "cannot listen for other hosts on \(configuration.address):\(configuration.port): "
                    + "\(error)")
        }
    }

    /// Connects to the hub, and again whenever the connection is lost.
    private func stayConnected() async {
        while !Task.isCancelled {
            if peers[0] == nil {
                let continuation = continuation
                _ = try? await ClientBootstrap(group: threads)
                    .channelOption(.tcpOption(.tcp_nodelay), value: 1)
                    .connectTimeout(.seconds(5))
                    .channelInitializer { HostChannels.configure($0, continuation) }
                    .connect(host: configuration.address, port: configuration.port).get()
            }
            try? await Task.sleep(for: Self.reconnectInterval)
        }
    }
}

// MARK: - Exchanges

extension HostGroup {
    /// Gives `payload` to every host and returns what each of them gives, by rank. All hosts make the same
    /// call. Throws when a host is lost or has ended the scope, or after `deadline`.
    public func exchange(
        _ scope: String, _ step: String, _ payload: [UInt8], deadline: ContinuousClock.Instant
    ) async throws(HostError) -> [[UInt8]] {
        let key = "\(scope)/\(step)"
        if let reason = endedScopes[scope] { throw HostError(.hostFailed, reason) }
        let timer = Task { [weak self] in
            try? await Task.sleep(until: deadline)
            if !Task.isCancelled { await self?.expire(key) }
        }
        defer { timer.cancel() }
        let result = await withCheckedContinuation { waiter in
            exchanges[key, default: Exchange()].waiter = waiter
            contribute(payload, to: key)
        }
        return try result.get()
    }

    /// Ends the scope on every host: their exchanges in it fail with `reason`.
    public func end(_ scope: String, reason: String) {
        let message = HostMessage.end(scope: scope, host: rank, reason: reason)
        ended(scope, host: rank, reason: reason)
        for channel in peers.values { channel.writeAndFlush(message, promise: nil) }
    }

    /// Calls `body` once when another host ends the scope, or is lost.
    public func watch(_ scope: String, _ body: @escaping @Sendable (HostError) -> Void) {
        if let reason = endedScopes[scope] {
            body(HostError(.hostFailed, reason))
        } else {
            watchers[scope] = body
        }
    }

    /// Forgets a scope that is over.
    public func forget(_ scope: String) {
        watchers[scope] = nil
        endedScopes[scope] = nil
        for key in exchanges.keys where key.hasPrefix("\(scope)/") {
            finish(key, .failure(Self.closed))
        }
    }

    private func contribute(_ payload: [UInt8], to key: String) {
        if isHub {
            exchanges[key]?.payloads[rank] = payload
            completeIfReady(key)
        } else if let hub = peers[0] {
            hub.writeAndFlush(HostMessage.put(key: key, payload: payload), promise: nil)
        } else {
            exchanges[key]?.payloads[rank] = payload
        }
    }

    func completeIfReady(_ key: String) {
        guard let exchange = exchanges[key], exchange.payloads.count == count else { return }
        let payloads = (0..<count).compactMap { exchange.payloads[$0] }
        let message = HostMessage.all(key: key, payloads: payloads)
        for channel in peers.values { channel.writeAndFlush(message, promise: nil) }
        finish(key, .success(payloads))
    }

    func finish(_ key: String, _ result: Result<[[UInt8]], HostError>) {
        exchanges.removeValue(forKey: key)?.waiter?.resume(returning: result)
    }

    private func expire(_ key: String) {
        guard let exchange = exchanges[key], exchange.waiter != nil else { return }
        let missing = (0..<count).filter { host in
            isHub ? exchange.payloads[host] == nil : host != rank
        }.map(hostName)
        if !isHub { peers[0]?.writeAndFlush(HostMessage.withdraw(key: key), promise: nil) }
        finish(
            key,
            .failure(
                HostError(
                    .deadlineExceeded,
                    "\(missing.joined(separator: ", ")) did not come to \(key) before the deadline")
            ))
    }

    /// `host 1 (gpu-node-1)`.
    func hostName(_ host: Int) -> String {
        names[host].map { "host \(host) (\($0))" } ?? "host \(host)"
    }
}
