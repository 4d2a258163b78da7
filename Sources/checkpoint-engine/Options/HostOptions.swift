import ArgumentParser
import CheckpointControl
import CheckpointEngine
import CheckpointHosts
import CheckpointModel
import FoundationEssentials

/// Flags about several hosts that update together, the same for `update` and `serve`.
struct HostOptions: ParsableArguments {
    @Option(
        name: .customLong("rendezvous"),
        help: Variables.help(
            "rendezvous",
            "Where the daemons of several hosts meet: the address and port of host 0, the same on "
                + "all. Under torchrun on several nodes it is MASTER_ADDR and MASTER_PORT + 1.",
            "host:port"))
    var rendezvous: ListenValue?

    @Option(
        name: .customLong("hosts"),
        help: Variables.help(
            "hosts", "How many hosts update together (default: 1, or torchrun's nodes).", "count"))
    var hosts: CountValue?

    @Option(
        name: .customLong("host-rank"),
        help: Variables.help(
            "host-rank",
            "Which of the hosts this is, from 0 on (default: torchrun's node rank).", "rank"))
    var rank: RankValue?

    @Option(
        name: .customLong("rendezvous-token-file"),
        help: Variables.help(
            "rendezvous-token-file",
            "A file with a token that the daemons of all hosts have to know; it is needed "
                + "where the rendezvous is not on loopback. Under torchrun the id of the run stands "
                + "for it, which keeps other runs out, but nobody who wants to get in.", "file"),
        completion: .file())
    var tokenFile: PathValue?

    @Flag(
        name: .customLong("torchrun"), inversion: .prefixedNo,
        help: Variables.help(
            "torchrun",
            "Whether torchrun's variables say which of several processes this is. By default they do where "
                + "torchrun has started this process itself; where it has them from its parent, one of "
                + "the two flags has to be given."))
    var torchrun: Bool?

    func configuration(_ variables: Variables) throws -> HostGroupConfiguration? {
        guard let address = try variables.value(rendezvous, "rendezvous")?.address else {
            guard let place = try place(variables) else { return nil }
            guard place.masterPort < 65_535 else {
                throw ValidationError(
                    "MASTER_PORT is 65535, so that there is no port after it for the daemons to meet at: "
                        + "set '--rendezvous'.")
            }
            let meeting = try Self.meeting(
                host: place.masterAddress, port: place.masterPort + 1, "MASTER_ADDR")
            let token = try token(variables) ?? place.runID
            try Self.check(token, for: .tcp(host: meeting.host.text, port: meeting.port))
            return HostGroupConfiguration(
                address: meeting.host.text, port: meeting.port, hostCount: place.hostCount,
                hostRank: place.hostRank, name: Self.hostName, token: token)
        }
        guard case .tcp(host: let host, port: let port) = address else {
            throw ValidationError("'--rendezvous' has to be an address and a port.")
        }
        let meeting = try Self.meeting(host: host, port: port, "--rendezvous")
        guard
            let count = try variables.value(hosts, "hosts")?.count ?? place(variables)?.hostCount,
            let rank = try variables.value(rank, "host-rank")?.rank ?? place(variables)?.hostRank
        else {
            throw ValidationError("'--rendezvous' needs '--hosts' and '--host-rank'.")
        }
        guard rank < count else {
            throw ValidationError("'--host-rank' is \(rank), but there are \(count) '--hosts'.")
        }
        let token = try token(variables)
        try Self.check(token, for: address)
        return HostGroupConfiguration(
            address: meeting.host.text, port: meeting.port, hostCount: count, hostRank: rank,
            name: Self.hostName,
            token: token)
    }

    private static func check(_ token: String?, for address: ControlAddress) throws {
        guard address.isLocal || token != nil else {
            throw ValidationError(
                "Other machines can reach \(address): set '--rendezvous-token-file', the same token "
                    + "on all hosts.")
        }
    }

    private static func meeting(host: String, port: Int, _ source: String) throws
        -> NetworkAddress
    {
        do throws(AddressFlaw) {
            return try NetworkAddress(host: try NetworkHost(host), port: port)
        } catch {
            throw ValidationError("The value of '\(source)' is no address of a host: \(error)")
        }
    }

    private func token(_ variables: Variables) throws -> String? {
        try variables.value(tokenFile, "rendezvous-token-file").map {
            try TokenFile.read($0.path).text
        }
    }

    private static var hostName: String { ProcessInfo.processInfo.hostName }
}
