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
    private var isClosed = false
    /// The connection to the hub, also before the hub has taken this host.
    var hub: HostConnection?
    /// Why the hub has not taken this host.
    var refusal: String?
    /// Who can be sent to, by rank: the hub has one for each other host, the others one for the hub.
    var peers: [Int: HostConnection] = [:]
    var names: [Int: String] = [:]
    var exchanges: [String: Exchange] = [:]
    private var waiterCount = 0
    /// Why a scope has ended, and who wants to know.
    var endedScopes: [String: String] = [:]
    var watchers: [String: @Sendable (HostError) -> Void] = [:]

    /// One exchange: what has come, at the hub from all and elsewhere from this host, and who waits here.
    struct Exchange {
        var payloads: [Int: [UInt8]] = [:]
        var waiter: Waiter?
    }

    struct Waiter {
        let id: Int
        let continuation: CheckedContinuation<Result<[[UInt8]], HostError>, Never>
    }

    public nonisolated var rank: Int { configuration.hostRank }
    public nonisolated var count: Int { configuration.hostCount }
    nonisolated var isHub: Bool { rank == 0 }
    private static let reconnectInterval = Duration.milliseconds(200)
    private static let reasonCharacterCountMax = 16_000

    public init(_ configuration: HostGroupConfiguration) throws(HostError) {
        guard (1...HostLimits.hostCountMax).contains(configuration.hostCount),
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
        isClosed = true
        connector?.cancel()
        for key in exchanges.keys { leave(key, Self.closed) }
        for connection in peers.values { try? await connection.channel.close() }
        try? await hub?.channel.close()
        try? await listener?.close()
        continuation.finish()
        await follower?.value
        try? await threads.shutdownGracefully()
    }

    private static let closed = HostError(.hostLost, "this host leaves the group")

    private func listen() async throws(HostError) {
        let continuation = continuation
        let entrance = HostEntrance(token: configuration.token ?? "")
        do {
            listener = try await ServerBootstrap(group: threads)
                .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
                .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
                .childChannelInitializer { HostEntrance.configure($0, continuation, entrance) }
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
            if hub == nil {
                let continuation = continuation
                _ = try? await ClientBootstrap(group: threads)
                    .channelOption(.tcpOption(.tcp_nodelay), value: 1)
                    .connectTimeout(.seconds(5))
                    .channelInitializer { HostEntrance.configure($0, continuation, nil) }
                    .connect(host: configuration.address, port: configuration.port).get()
            }
            try? await Task.sleep(for: Self.reconnectInterval)
        }
    }
}

// MARK: - Exchanges

extension HostGroup {
    /// Gives `payload` to every host and returns what each of them gives, by rank. All hosts make the same
    /// call, one at a time for each step. Throws when a host is lost or has ended the scope, or after
    /// `deadline`. Cancelling the task ends the wait, also that of the hosts that wait for this one.
    public func exchange(
        _ scope: String, _ step: String, _ payload: [UInt8], deadline: ContinuousClock.Instant
    ) async throws(HostError) -> [[UInt8]] {
        let key = "\(scope)/\(step)"
        if isClosed { throw Self.closed }
        if let reason = endedScopes[scope] { throw HostError(.hostFailed, reason) }
        guard payload.count <= HostLimits.payloadByteCountMax else {
            throw HostError(
                .invalidArgument,
                "\(payload.count) bytes cannot be sent to other hosts at a time; at most "
                    + "\(HostLimits.payloadByteCountMax) are possible")
        }
        guard exchanges[key]?.waiter == nil else {
            throw HostError(.invalidArgument, "this host is waiting in \(key) already")
        }
        waiterCount += 1
        let id = waiterCount
        let timer = Task { [weak self] in
            do { try await Task.sleep(until: deadline) } catch { return }
            await self?.expire(key, id)
        }
        defer { timer.cancel() }
        let result = await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                exchanges[key, default: Exchange()].waiter = Waiter(
                    id: id, continuation: continuation)
                contribute(payload, to: key)
            }
        } onCancel: {
            Task { await self.cancel(key, id) }
        }
        return try result.get()
    }

    /// Ends the scope on every host: their exchanges in it fail with `reason`.
    public func end(_ scope: String, reason: String) {
        let reason = String(reason.prefix(Self.reasonCharacterCountMax))
        ended(scope, host: rank, reason: reason)
        for connection in peers.values {
            connection.send(.end(scope: scope, host: rank, reason: reason))
        }
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
            leave(key, Self.closed)
        }
    }

    private func contribute(_ payload: [UInt8], to key: String) {
        exchanges[key, default: Exchange()].payloads[rank] = payload
        if isHub {
            completeIfReady(key)
        } else {
            // Else it is sent when the hub has taken this host.
            peers[0]?.send(.put(key: key, payload: payload))
        }
    }

    func completeIfReady(_ key: String) {
        guard let exchange = exchanges[key], exchange.payloads.count == count else { return }
        let payloads = (0..<count).compactMap { exchange.payloads[$0] }
        let byteCount = payloads.reduce(0) { $0 + $1.count }
        guard byteCount <= HostLimits.frameByteCountMax else {
            let reason =
                "the hosts have \(byteCount) bytes for each other; at most "
                + "\(HostLimits.frameByteCountMax) are possible"
            tellLeft(key, host: rank, reason: reason)
            return leave(key, HostError(.invalidArgument, reason))
        }
        for connection in peers.values { connection.send(.all(key: key, payloads: payloads)) }
        finish(key, payloads)
    }

    /// Ends an exchange that all have contributed to.
    func finish(_ key: String, _ payloads: [[UInt8]]) {
        exchanges.removeValue(forKey: key)?.waiter?.continuation.resume(
            returning: .success(payloads))
    }

    /// Waits no longer, and takes back what this host has contributed. With a reason it has given up, and others
    /// that wait for it are told; else they go on waiting: this host may come back before their deadlines.
    func leave(_ key: String, _ error: HostError, reason: String? = nil) {
        let waiter = exchanges[key]?.waiter
        exchanges[key]?.waiter = nil
        takeBack(key, of: rank)
        if isHub {
            if let reason { tellLeft(key, host: rank, reason: reason) }
        } else {
            peers[0]?.send(.withdraw(key: key, reason: reason))
        }
        waiter?.continuation.resume(returning: .failure(error))
    }

    /// Forgets what a host has contributed.
    func takeBack(_ key: String, of host: Int) {
        exchanges[key]?.payloads[host] = nil
        if let exchange = exchanges[key], exchange.waiter == nil, exchange.payloads.isEmpty {
            exchanges[key] = nil
        }
    }

    /// Tells the hosts that wait for `host` in an exchange at the hub that it has given up.
    func tellLeft(_ key: String, host: Int, reason: String) {
        for other in (exchanges[key]?.payloads ?? [:]).keys where other != host && other != rank {
            takeBack(key, of: other)
            peers[other]?.send(.left(key: key, host: host, reason: reason))
        }
    }

    private func cancel(_ key: String, _ id: Int) {
        guard exchanges[key]?.waiter?.id == id else { return }
        leave(
            key, HostError(.cancelled, "the update was cancelled while it waited in \(key)"),
            reason: "its update was cancelled")
    }

    private func expire(_ key: String, _ id: Int) {
        guard let exchange = exchanges[key], exchange.waiter?.id == id else { return }
        let missing = (0..<count).filter { host in
            isHub ? exchange.payloads[host] == nil : host != rank
        }.map(hostName)
        let why = refusal.map { "; host 0 does not take this one: \($0)" } ?? ""
        leave(
            key,
            HostError(
                .deadlineExceeded,
                "\(missing.joined(separator: ", ")) did not come to \(key) before the deadline\(why)"
            ))
    }

    /// `host 1 (gpu-node-1)`.
    func hostName(_ host: Int) -> String {
        names[host].map { "host \(host) (\($0))" } ?? "host \(host)"
    }
}
