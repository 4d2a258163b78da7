import ArgumentParser
import CheckpointControl
import CheckpointEngine
import CheckpointTransfer

/// Flags about what is read from other hosts, and what they read from here.
struct TransferOptions: ParsableArguments {
    @Option(
        name: .customLong("transfer-host"),
        help: Variables.help(
            "transfer-host",
            "The address at which other hosts reach this one, for transfers of checkpoints between "
                + "hosts; the default is that of --listen (for 0.0.0.0 that of the default "
                + "route), or 127.0.0.1.", "host"))
    var host: TextValue?

    @Option(
        name: .customLong("transfer-protocol"),
        help: Variables.help(
            "transfer-protocol",
            "What carries checkpoints between hosts: tcp, rdma, or auto, which takes rdma where this "
                + "host has devices for it (default: auto).", "protocol"))
    var protocolName: TransferProtocol?

    @Option(
        name: .customLong("transfer-device"),
        help: Variables.help(
            "transfer-device",
            "An RDMA device for transfers; repeat it for several, the variable separates them by "
                + "commas. The default is PS_P2P_STORE_RDMA_DEVICES, NCCL_IB_HCA, or all.",
            "name"))
    var devices: [TextValue] = []

    @Option(
        name: .customLong("transfer-python"),
        help: Variables.help(
            "transfer-python",
            "The Python that has the packages checkpoint-engine-native[p2p] (default: the one that "
                + "started this program, or python3).", "program"))
    var python: TextValue?

    @Option(
        name: .customLong("advertise-url"),
        help: Variables.help(
            "advertise-url",
            "The URL under which other hosts reach this daemon, so that they can read from it what it "
                + "still reads itself (default: --transfer-host and the port of --listen).", "url"))
    var url: TextValue?

    /// `listening` is where the daemon listens; `nil` for a command that takes no requests.
    func configuration(_ variables: Variables, listening: ControlAddress?) throws
        -> PullConfiguration
    {
        var ownHost = "127.0.0.1"
        var port: Int?
        if case .tcp(let host, let listenPort) = listening {
            ownHost = Self.wildcards.contains(host) ? Self.anyHost : host
            port = listenPort
        }
        let named = try variables.value(host, "transfer-host")?.text
        var agent = AgentConfiguration(
            host: named ?? ownHost, protocolName: try agentProtocol(variables),
            devices: try variables.values(devices, "transfer-device").map(\.text))
        let program = try variables.value(python, "transfer-python")?.text
        agent.executable = program ?? variables.plain(Self.pythonVariable) ?? "python3"
        let advertised = try variables.value(url, "advertise-url")?.text
        let reachable = named ?? (ownHost == Self.anyHost ? nil : ownHost)
        let usual = reachable.flatMap { host in
            port.flatMap { $0 > 0 ? "http://\(host):\($0)" : nil }
        }
        return PullConfiguration(agent: agent, advertisedURL: advertised ?? usual)
    }

    private static let wildcards = ["0.0.0.0", "::"]
    /// The agent takes the address of this host's default route.
    private static let anyHost = "auto"
    /// Set by the Python package when it starts this program.
    private static let pythonVariable = "CHECKPOINT_ENGINE_PYTHON"

    private func agentProtocol(_ variables: Variables) throws -> AgentConfiguration.ProtocolName {
        switch try variables.value(protocolName, "transfer-protocol") ?? .auto {
        case .tcp: .tcp
        case .rdma: .rdma
        case .auto: .auto
        }
    }
}

/// What carries checkpoints between hosts.
enum TransferProtocol: String, CommandValue, CaseIterable {
    case auto
    case tcp
    case rdma
}
