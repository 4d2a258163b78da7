/// The place of this process among those that `torchrun` has started.
///
/// Source: the environment that PyTorch's `torch.distributed.run` documents.
struct TorchrunPlace: Hashable, Sendable {
    let rank: Int
    let localRank: Int
    /// Processes on this host, and in all.
    let localCount: Int
    let count: Int
    let masterAddress: String
    let masterPort: Int
    /// Names the run; the same for all of its processes.
    let runID: String

    var hostCount: Int { count / localCount }
    var hostRank: Int { rank / localCount }

    /// `nil` for a process that was not started by `torchrun`.
    init?(_ variables: Variables) {
        guard let rank = variables.number("RANK"), let localRank = variables.number("LOCAL_RANK"),
            let count = variables.number("WORLD_SIZE"),
            let localCount = variables.number("LOCAL_WORLD_SIZE"),
            let port = variables.number("MASTER_PORT"),
            let address = variables.plain("MASTER_ADDR"), localCount > 0,
            (0..<count).contains(rank), (0..<localCount).contains(localRank),
            (1..<65_535).contains(port)
        else { return nil }
        self.rank = rank
        self.localRank = localRank
        self.localCount = localCount
        self.count = count
        masterAddress = address
        masterPort = port
        runID = variables.plain("TORCHELASTIC_RUN_ID") ?? "none"
    }
}
