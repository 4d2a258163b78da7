import ArgumentParser
import CheckpointControl
import CheckpointEngine
import CheckpointModel

/// `checkpoint-engine join`: a daemon that begins by taking a checkpoint from other hosts.
struct JoinCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "join",
        abstract:
            "Take a checkpoint from hosts that serve it, update new engines, go on as a daemon.",
        discussion: """
            Reads the checkpoint out of the memory of the daemons that --source names, while those keep \
            serving, and updates the engines with what arrives. Then it goes on like serve: it holds the \
            checkpoint, takes orders over HTTP, and other hosts can join from it, even while it still \
            reads. Only the named engines are updated; no other notices. Ends with an error when the \
            checkpoint cannot be had or the update fails.

              checkpoint-engine join --source http://10.0.0.7:19731 \\
                --source http://10.0.0.8:19731 --source-token-file /etc/ce-token \\
                --checkpoint-name step-100 --endpoint http://127.0.0.1:8000 \\
                --listen 0.0.0.0:19731 --token-file /etc/ce-token --transfer-host 10.0.0.9

            It needs the package checkpoint-engine-native[p2p], on both sides.
            """)

    @OptionGroup var targetOptions: TargetOptions

    @OptionGroup var sourceOptions: SourceOptions

    @OptionGroup var listenOptions: ListenOptions

    @OptionGroup var orderOptions: OrderOptions

    @OptionGroup var engineOptions: EngineOptions

    @OptionGroup var logOptions: LogOptions

    func run() async throws {
        let variables = Variables.process
        let address = try listenOptions.address(
            variables, runtimeDirectory: engineOptions.runtimePath(variables))
        let order = JoinOrder(
            name: try targetOptions.name(variables),
            source: try sourceOptions.order(variables),
            request: try targetOptions.request(variables),
            readySeconds: try targetOptions.readySeconds(variables))
        let logger = try logOptions.logger(default: .info, variables)
        try engineOptions.hostOptions.tell(logger, variables)
        let daemon = DaemonRun(
            address: address, access: try listenOptions.access(at: address, variables),
            engines: try orderOptions.allowedEngines(variables),
            configuration: try engineOptions.configuration(
                variables, listening: address, roots: orderOptions.allowedFiles(variables)),
            logger: logger, owner: try variables.value(listenOptions.owner, "until-exit-of")?.id)
        try await daemon.run { engine in
            JoinService(engine: engine, order: order, logger: logger)
        }
    }
}

/// Everything that one run of `join` was told beside how it serves.
struct JoinOrder: Sendable {
    let name: CheckpointName
    let source: SourceOrder
    let request: UpdateRequest
    let readySeconds: Double
}
