public import Logging

/// The agents that other hosts read from, all with the same files.
///
/// One of Mooncake's engines has one thread for all of TCP's connections, which sets the rate of an agent; with
/// RDMA one agent drives all cards, and the others are not started.
public struct SharingAgents: Sendable {
    /// How long an agent but the first may take before it is left out for now.
    private static let othersTimeout = Duration.seconds(2)

    private let keepers: [TransferAgentKeeper]

    public init(_ configuration: AgentConfiguration, count: Int, logger: Logger) {
        precondition(count > 0, "somebody is read from")
        keepers = (0..<count).map { _ in TransferAgentKeeper(configuration, logger: logger) }
    }

    /// Notes a file, which the next ``current()`` maps.
    public func add(_ mapping: TransferMapping) async {
        for keeper in keepers { await keeper.add(mapping) }
    }

    /// Forgets a file, and unmaps it.
    public func remove(path: String) async {
        await withTaskGroup(of: Void.self) { group in
            for keeper in keepers { group.addTask { await keeper.remove(path: path) } }
        }
    }

    /// The agents that run and have mapped what they can; starts them where they do not run. Throws the first
    /// one's failure; others that fail are left out.
    public func current() async throws(TransferError) -> [TransferAgentKeeper.Current] {
        let first = try await keepers[0].current()
        guard first.agent.protocolName != "rdma" else { return [first] }
        let others = keepers.dropFirst().map { keeper in
            Task { try? await keeper.current(timeout: Self.othersTimeout) }
        }
        var all = [first]
        for other in others {
            if let current = await other.value { all.append(current) }
        }
        return all
    }

    /// Stops them for good; returns when their processes are gone.
    public func stop() async {
        await withTaskGroup(of: Void.self) { group in
            for keeper in keepers { group.addTask { await keeper.stop() } }
        }
    }
}
