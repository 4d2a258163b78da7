import ArgumentParser
import CheckpointControl
import CheckpointEngine
import CheckpointModel
import CheckpointPull
import CheckpointTransfer
import Glibc

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
        name: .customLong("transfer-agents"),
        help: Variables.help(
            "transfer-agents",
            "How many agents others read from over TCP, and how many each pull reads with; with RDMA it "
                + "is one (default: one for every 8 cores, at most \(Self.agentCountMax)).", "count"
        ))
    var agents: CountValue?

    @Option(
        name: .customLong("advertise-url"),
        help: Variables.help(
            "advertise-url",
            "The URL under which other hosts reach this daemon, so that they can read from it what it "
                + "still reads itself (default: --transfer-host and the port of --listen).", "url"))
    var url: URLValue?

    @Option(
        name: .customLong("ring-memory"),
        help: Variables.help(
            "ring-memory",
            "The shared memory that a checkpoint passes through when it is read from other hosts and "
                + "not kept; less where there is less (default: \(PullConfiguration.ringByteCountDefault)).",
            "bytes"))
    var ringMemory: ByteCountValue?

    @Option(
        name: .customLong("checksums"),
        help: Variables.help(
            "checksums",
            "When a checkpoint's checksums for readers are computed: ahead, in time that nothing else "
                + "needs; asked, by the first reader; or auto, which is ahead where other hosts reach "
                + "this daemon (default: auto).", "when"))
    var checksums: ChecksumTime?

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
        let advertised = try advertisedURL(variables)
        let reachable = named ?? (ownHost == Self.anyHost ? nil : ownHost)
        let usual = try Self.usualURL(host: reachable, port: port)
        let agentCount = try variables.value(agents, "transfer-agents")?.count
        guard agentCount ?? 1 <= LeaseState.endpointCountMax else {
            throw ValidationError(
                "--transfer-agents is at most \(LeaseState.endpointCountMax), not "
                    + "\(agentCount ?? 0).")
        }
        let ring = try variables.value(ringMemory, "ring-memory")?.byteCount
        return PullConfiguration(
            agent: agent, advertisedURL: advertised ?? usual,
            ringByteCount: ring ?? PullConfiguration.ringByteCountDefault,
            computesChecksumsAhead: try computesAhead(
                variables,
                isReachable: advertised != nil || usual != nil && !Self.isLoopback(reachable)),
            agentCount: agentCount ?? Self.usualAgentCount)
    }

    private func advertisedURL(_ variables: Variables) throws -> HTTPURL? {
        guard let url = try variables.value(url, "advertise-url")?.url("advertise-url") else {
            return nil
        }
        do throws(AddressFlaw) {
            return try SourceAddress(url).origin
        } catch {
            throw ValidationError("'--advertise-url': \(error)")
        }
    }

    /// `nil` where nobody knows the port, or the host.
    private static func usualURL(host: String?, port: Int?) throws -> HTTPURL? {
        guard let host, let port, port > 0 else { return nil }
        do throws(AddressFlaw) {
            return HTTPURL(try NetworkAddress(host: try NetworkHost(host), port: port))
        } catch {
            throw ValidationError(
                "Other hosts cannot reach '\(host)': \(error); name this host's address with "
                    + "'--transfer-host'.")
        }
    }

    /// Each is as fast as one core; others are for the engines.
    private static let agentCountMax = 4

    private static var usualAgentCount: Int {
        max(1, min(agentCountMax, Int(sysconf(CInt(_SC_NPROCESSORS_ONLN))) / 8))
    }

    private func computesAhead(_ variables: Variables, isReachable: Bool) throws -> Bool {
        switch try variables.value(checksums, "checksums") ?? .auto {
        case .ahead: true
        case .asked: false
        case .auto: isReachable
        }
    }

    private static func isLoopback(_ host: String?) -> Bool {
        guard let host else { return false }
        return host.hasPrefix("127.") || host == "localhost" || host == "::1"
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

/// When checksums are computed.
enum ChecksumTime: String, CommandValue, CaseIterable {
    case auto
    case ahead
    case asked
}

/// What carries checkpoints between hosts.
enum TransferProtocol: String, CommandValue, CaseIterable {
    case auto
    case tcp
    case rdma
}
