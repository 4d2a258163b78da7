import ArgumentParser
import CheckpointControl
import CheckpointEngine

/// `checkpoint-engine serve`: the daemon.
struct ServeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "serve",
        abstract: "Run the daemon: keep checkpoints and take orders over HTTP.",
        discussion: """
            Listens on a unix socket that only its user can reach: that of --uds, else \
            checkpoint-engine/daemon.sock in $XDG_RUNTIME_DIR, else checkpoint-engine-UID/daemon.sock \
            in --runtime-dir. A TCP address needs a token, which clients send as \
            \"Authorization: Bearer TOKEN\". SIGTERM or Ctrl-C cancels what runs and removes every \
            file and socket; the exit code is 0 then.

              checkpoint-engine serve
              checkpoint-engine serve --uds /run/checkpoint-engine.sock
              checkpoint-engine serve --listen 0.0.0.0:19731 --token-file /etc/ce-token

            Then, as the same user:

              curl --unix-socket /run/checkpoint-engine.sock -d '{\"files\": [\"/models/new\"]}' \\
                http://d/v1/checkpoints/step-1/files
              curl --unix-socket /run/checkpoint-engine.sock \\
                -d '{\"update_url\": \"http://127.0.0.1:8000/collective_rpc\"}' \\
                http://d/v1/checkpoints/step-1/update
            """)

    @Option(
        name: .customLong("uds"),
        help: Variables.help(
            "uds", "The unix socket to listen on, instead of an address; it gets mode 0600.",
            "path"),
        completion: .file())
    var socket: PathValue?

    @OptionGroup var listenOptions: ListenOptions

    @OptionGroup var orderOptions: OrderOptions

    @OptionGroup var engineOptions: EngineOptions

    @OptionGroup var logOptions: LogOptions

    func run() async throws {
        let variables = Variables.process
        let address = try address(variables)
        let logger = try logOptions.logger(default: .info, variables)
        try engineOptions.hostOptions.tell(logger, variables)
        let daemon = DaemonRun(
            address: address, access: try listenOptions.access(at: address, variables),
            engines: try orderOptions.allowedEngines(variables),
            configuration: try engineOptions.configuration(
                variables, listening: address, roots: orderOptions.allowedFiles(variables)),
            logger: logger,
            owner: try variables.value(listenOptions.owner, "until-exit-of")?.id)
        try await daemon.run()
    }

    private func address(_ variables: Variables) throws -> ControlAddress {
        let socket = try variables.value(socket, "uds")?.path
        guard let socket else {
            return try listenOptions.address(
                variables, runtimeDirectory: engineOptions.runtimePath(variables))
        }
        guard try variables.value(listenOptions.listen, "listen") == nil else {
            throw ValidationError("'--listen' and '--uds' exclude each other: keep one.")
        }
        return .unix(path: socket)
    }
}
