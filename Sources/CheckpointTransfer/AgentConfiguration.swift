/// How the transfer agent is started.
public struct AgentConfiguration: Hashable, Sendable {
    /// What carries the bytes.
    public enum ProtocolName: String, Sendable, Hashable, CaseIterable {
        /// RDMA where the host has devices for it, else TCP.
        case auto
        case tcp
        case rdma
    }

    /// A program: a name is looked up in `PATH`, anything with a slash is a path.
    public var executable = "python3"
    /// What comes before the agent's own options.
    public var arguments = ["-m", "checkpoint_engine.transfer_agent"]
    /// Added to the environment of this process.
    public var environment: [String: String] = [:]
    /// The address at which other hosts reach this one.
    public var host: String
    public var protocolName: ProtocolName
    /// RDMA devices; none: the agent chooses.
    public var devices: [String]
    /// PCI addresses of the GPUs, near which the agent looks for devices.
    public var gpuBusIDs: [String]
    /// Until the agent has to be ready.
    public var startTimeout = Duration.seconds(20)

    public init(
        host: String, protocolName: ProtocolName = .auto, devices: [String] = [],
        gpuBusIDs: [String] = []
    ) {
        self.host = host
        self.protocolName = protocolName
        self.devices = devices
        self.gpuBusIDs = gpuBusIDs
    }

    /// All arguments of the program, in order.
    var commandLine: [String] {
        arguments + ["--host", host, "--protocol", protocolName.rawValue]
            + devices.flatMap { ["--device", $0] } + gpuBusIDs.flatMap { ["--gpu-bus-id", $0] }
    }
}
