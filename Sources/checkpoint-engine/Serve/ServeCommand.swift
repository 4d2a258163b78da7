import ArgumentParser
import CheckpointControl
import CheckpointEngine
import Logging
import ServiceLifecycle

/// `checkpoint-engine serve`: the daemon.
struct ServeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "serve",
        abstract: "Run the daemon: keep checkpoints and take orders over HTTP.",
        discussion: """
            Listens on loopback or on a unix socket. Any other address needs a token, which clients \
            send as \"Authorization: Bearer TOKEN\". SIGTERM or Ctrl-C cancels what runs and \
            removes every file and socket; the exit code is 0 then.

              checkpoint-engine serve
              checkpoint-engine serve --uds /run/checkpoint-engine.sock
              checkpoint-engine serve --listen 0.0.0.0:19731 --token-file /etc/ce-token

            Then, from anywhere on this machine:

              curl -d '{\"files\": [\"/models/new\"]}' \\
                http://127.0.0.1:19731/v1/checkpoints/step-1/files
              curl -d '{\"update_url\": \"http://127.0.0.1:8000/collective_rpc\"}' \\
                http://127.0.0.1:19731/v1/checkpoints/step-1/update
            """)

    static let addressDefault = ControlAddress.tcp(host: "127.0.0.1", port: 19_731)
    /// What runs gets this long to end; its deadlines are shorter.
    private static let shutdownSecondsMax = 30

    @Option(
        name: .customLong("listen"),
        help: Variables.help(
            "listen",
            "The address to listen on; port 0 takes a free one, told in the log (default: "
                + "127.0.0.1:19731).", "host:port"))
    var listen: ListenValue?

    @Option(
        name: .customLong("uds"),
        help: Variables.help(
            "uds", "The unix socket to listen on, instead of an address; it gets mode 0600.",
            "path"),
        completion: .file())
    var socket: PathValue?

    @Option(
        name: .customLong("token-file"),
        help: Variables.help(
            "token-file",
            "A file with the token that requests have to carry: \(BearerToken.rule).", "file"),
        completion: .file())
    var tokenFile: PathValue?

    @Option(
        name: .customLong("until-exit-of"),
        help: Variables.help(
            "until-exit-of",
            "Stop, as if by SIGTERM, when the process of this id has ended: for a daemon that belongs "
                + "to a trainer.", "pid"))
    var owner: ProcessValue?

    @OptionGroup var engineOptions: EngineOptions

    @OptionGroup var logOptions: LogOptions

    func run() async throws {
        let variables = Variables.process
        let address = try address(variables)
        let token = try variables.value(tokenFile, "token-file").map {
            try TokenFile.read($0.path)
        }
        guard address.isLocal || token != nil else {
            throw ValidationError(
                "Other machines can reach \(address): set '--token-file', or listen on 127.0.0.1 "
                    + "or a unix socket.")
        }
        let configuration = try engineOptions.configuration(variables)
        let logger = try logOptions.logger(default: .info, variables)
        let signals = try StopSignals.install()
        try variables.value(owner, "until-exit-of").map { try OwnerWatch.start($0.id, logger) }
        let engine = try CheckpointEngine(configuration: configuration, logger: logger)
        do {
            try await engine.joinHosts()
            try await serve(
                engine, signals, logger,
                ControlConfiguration(
                    address: address, bearerToken: token, version: Version.current))
        } catch {
            await engine.shutDown()
            throw error
        }
    }

    private func serve(
        _ engine: CheckpointEngine, _ signals: AsyncStream<CInt>, _ logger: Logger,
        _ configuration: ControlConfiguration
    ) async throws {
        let server = try ControlServer(
            engine: engine, configuration: configuration, logger: logger
        ) { address in
            logger.info("Listening", metadata: ["address": "\(address)"])
        }
        // The last service stops first: the updates end, the clients that wait for them get their
        // answers, and then the server closes.
        var groupConfiguration = ServiceGroupConfiguration(
            services: [ServerService(server: server), EngineService(engine: engine)],
            logger: Self.quiet(logger))
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

    private func address(_ variables: Variables) throws -> ControlAddress {
        let listen = try variables.value(listen, "listen")?.address
        let socket = try variables.value(socket, "uds")?.path
        guard let socket else { return listen ?? Self.addressDefault }
        guard listen == nil else {
            throw ValidationError("'--listen' and '--uds' exclude each other: keep one.")
        }
        return .unix(path: socket)
    }

    /// The lines of the service library tell operators nothing that ours do not.
    private static func quiet(_ logger: Logger) -> Logger {
        var logger = logger
        logger.logLevel = max(.error, logger.logLevel)
        return logger
    }
}
