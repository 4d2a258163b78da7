public import CheckpointEngine
import Hummingbird
import HummingbirdCore
public import Logging
import NIOCore
import Synchronization

/// The HTTP server of the daemon.
///
/// It owns the socket file, not the engine: whoever made the engine shuts it down.
public struct ControlServer: Sendable {
    private let engine: CheckpointEngine
    private let configuration: ControlConfiguration
    private let logger: Logger
    private let onListening: @Sendable (ControlAddress) -> Void

    /// `onListening` gets the address that clients can connect to, with the port that was chosen
    /// where the configuration leaves it open.
    ///
    /// - Throws: ``ControlError`` when an address that others can reach has no token.
    public init(
        engine: CheckpointEngine, configuration: ControlConfiguration, logger: Logger,
        onListening: @escaping @Sendable (ControlAddress) -> Void = { _ in }
    ) throws(ControlError) {
        if case .everyone = configuration.access, !configuration.address.isLocal {
            throw ControlError(
                .listenFailed,
                "other machines can reach \(configuration.address): set --token-file to a file "
                    + "with a secret of \(BearerToken.rule), or listen on 127.0.0.1 or a unix "
                    + "socket")
        }
        self.engine = engine
        self.configuration = configuration
        self.logger = logger
        self.onListening = onListening
    }

    /// Serves until the surrounding service group shuts down, then removes the socket file. Requests
    /// that run get their answers first.
    ///
    /// - Throws: ``ControlError`` when the address cannot be listened on.
    public func run() async throws {
        switch configuration.address {
        case .tcp(let host, let port):
            try await serve(.hostname(host, port: port)) { channel in
                onListening(.tcp(host: host, port: channel.localAddress?.port ?? port))
            }
        case .unix(let path):
            try await serve(UnixSocketFile(path: path))
        }
    }

    private func serve(_ file: UnixSocketFile) async throws {
        try file.checkFree()
        let protection = Mutex<Result<UnixSocketFile.Identity, ControlError>?>(nil)
        defer {
            if case .success(let identity) = protection.withLock({ $0 }) { file.remove(identity) }
        }
        try await serve(.unixDomainSocket(path: file.path)) { channel in
            // The server accepts nobody before this returns.
            let result = Result { () throws(ControlError) in try file.protect() }
            protection.withLock { $0 = result }
            switch result {
            case .success: onListening(.unix(path: file.path))
            case .failure: channel.close(promise: nil)
            }
        }
        if case .failure(let error) = protection.withLock({ $0 }) { throw error }
    }

    private func serve(
        _ address: BindAddress, onRunning: @escaping @Sendable (any Channel) -> Void
    ) async throws {
        // The framework's own lines are of no use to operators; ours say what happens.
        var frameworkLogger = logger
        frameworkLogger.logLevel = max(.warning, logger.logLevel)
        let isListening = Atomic(false)
        let routes = ControlRoutes(engine: engine, configuration: configuration, logger: logger)
        let connections = routes.connections
        let application = Application(
            router: routes.makeRouter(),
            server: .http1(
                configuration: .init(
                    additionalChannelHandlers: [ConnectionHandler(connections)],
                    idleTimeout: Self.idleTimeout,
                    httpDecoderConfiguration: Self.headLimits)),
            configuration: ApplicationConfiguration(
                address: address,
                availableConnectionsDelegate: .maximum(
                    connections.limits.total + Self.closingConnectionCountMax,
                    logger: frameworkLogger)),
            onServerRunning: { channel in
                isListening.store(true, ordering: .relaxed)
                onRunning(channel)
            },
            logger: frameworkLogger)
        do {
            try await application.run()
        } catch  where !isListening.load(ordering: .relaxed) && !(error is CancellationError) {
            throw ControlError(
                .listenFailed,
                "cannot listen on \(configuration.address): it has to be an address of this "
                    + "machine, or a path in an existing directory, that no other process uses",
                cause: "\(error)")
        }
    }

    /// A connection without a request, or one that stops in the middle of it, is closed.
    private static let idleTimeout = TimeAmount.seconds(60)
    /// Connections that lost their place and are not closed yet; further clients wait in the queue of
    /// the system.
    private static let closingConnectionCountMax = 64
    /// What a request may have before its body.
    private static let headLimits = HTTP1Channel.Configuration.DecoderConfiguration(
        maxHeaderFieldSize: 16 << 10, maxHeaderListSize: 32 << 10, maxHeaderFieldCount: 100)
}
