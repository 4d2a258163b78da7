import CheckpointControl
import CheckpointEngine
import CheckpointNative
import CheckpointModel
import Glibc
import Logging
import ServiceLifecycle

/// A daemon from its start to its end.
struct DaemonRun: Sendable {
    /// What runs gets this long to end; its deadlines are shorter.
    private static let shutdownSecondsMax = 30

    let address: ControlAddress
    let access: ControlAccess
    let engines: EngineAllowList
    let configuration: EngineConfiguration
    let logger: Logger
    /// The process that it belongs to.
    let owner: pid_t?

    /// Serves until a signal; `beside` is one more service, which ends the daemon when it fails.
    func run(beside: @Sendable (CheckpointEngine) -> (any Service)? = { _ in nil }) async throws {
        // Nothing that it makes is for other users, from the first moment on.
        umask(0o077)
        try await EarlyResources.take()
        let signals = try StopSignals.install()
        if let owner { try OwnerWatch.start(owner, logger) }
        let engine = try CheckpointEngine(configuration: configuration, logger: logger)
        do {
            try await engine.joinHosts()
            try await serve(engine, signals, beside(engine))
        } catch {
            await engine.shutDown()
            throw error
        }
    }

    private func serve(
        _ engine: CheckpointEngine, _ signals: AsyncStream<CInt>, _ other: (any Service)?
    ) async throws {
        let logger = logger
        let server = try ControlServer(
            engine: engine,
            configuration: controlConfiguration,
            logger: logger
        ) { address in
            logger.info("Listening", metadata: ["address": "\(address)"])
            if case .tcp = address, case .everyone = access {
                logger.warning(
                    "No token is asked for: every user of this machine can give orders",
                    metadata: ["address": "\(address)"])
            }
        }
        // The last service stops first: the updates end, the clients that wait for them get their
        // answers, and then the server closes.
        var services: [ServiceGroupConfiguration.ServiceConfiguration] = [
            .init(service: ServerService(server: server)),
            .init(service: EngineService(engine: engine)),
        ]
        if let other {
            services.append(
                .init(service: other, failureTerminationBehavior: .gracefullyShutdownGroup))
        }
        var groupConfiguration = ServiceGroupConfiguration(
            services: services, logger: Self.quiet(logger))
        groupConfiguration.maximumGracefulShutdownDuration = .seconds(Self.shutdownSecondsMax)
        let group = ServiceGroup(configuration: groupConfiguration)
        _ = try await StopSignals.guarding(
            signals, cancels: false,
            stop: {
                logger.notice("Stopping")
                await group.triggerGracefulShutdown()
            },
            work: { try await group.run() })
    }

    private var controlConfiguration: ControlConfiguration {
        let advertised = configuration.pull.advertisedURL?.address.host.text
        return ControlConfiguration(
            address: address, access: access, hostNames: advertised.map { [$0] } ?? [],
            engines: engines, descriptorCountMax: Descriptors.limit, version: Version.current)
    }

    /// The lines of the service library tell operators nothing that ours do not.
    private static func quiet(_ logger: Logger) -> Logger {
        var logger = logger
        logger.logLevel = max(.error, logger.logLevel)
        return logger
    }
}
