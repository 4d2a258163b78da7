import ArgumentParser

/// The place of this process among those that `torchrun` has started.
///
/// Source: the environment that PyTorch's `torch.distributed.run` documents.
struct TorchrunPlace: Hashable, Sendable {
    /// All of them have to be there.
    static let names = [
        "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT",
    ]
    /// Which node this is, and of how many. Other launchers leave them out.
    private static let groupNames = ["GROUP_RANK", "GROUP_WORLD_SIZE"]
    private static let runName = "TORCHELASTIC_RUN_ID"
    private static let restartName = "TORCHELASTIC_RESTART_COUNT"
    private static let countMax = 1 << 24

    let localRank: Int
    /// Processes on this host, and in all.
    let localCount: Int
    let count: Int
    let hostRank: Int
    let hostCount: Int
    let masterAddress: String
    let masterPort: Int
    /// Names the run, the same for all of its processes; `nil` where another launcher than `torchrun`
    /// has set the other variables.
    let runID: String?
    /// How often `torchrun` has started its processes anew.
    let restartCount: Int
    /// What was read, as in `RANK=3, LOCAL_RANK=3`.
    let text: String

    /// `nil` where a variable is missing, and no launcher has set them. Throws for values that contradict
    /// each other.
    init?(_ variables: Variables) throws {
        guard Self.names.allSatisfy({ variables.plain($0) != nil }),
            let masterAddress = variables.plain("MASTER_ADDR")
        else { return nil }
        self.masterAddress = masterAddress
        count = try Self.number(variables, "WORLD_SIZE", 1...Self.countMax)
        localCount = try Self.number(variables, "LOCAL_WORLD_SIZE", 1...count)
        let rank = try Self.number(variables, "RANK", 0...(count - 1))
        localRank = try Self.number(variables, "LOCAL_RANK", 0...(localCount - 1))
        masterPort = try Self.number(variables, "MASTER_PORT", 1...65_535)
        runID = variables.plain(Self.runName)
        restartCount = variables.number(Self.restartName) ?? 0
        text = (Self.names + Self.groupNames).compactMap { name in
            variables.plain(name).map { "\(name)=\($0)" }
        }.joined(separator: ", ")
        if Self.groupNames.contains(where: { variables.plain($0) != nil }) {
            hostCount = try Self.number(variables, "GROUP_WORLD_SIZE", 1...count)
            hostRank = try Self.number(variables, "GROUP_RANK", 0...(hostCount - 1))
            guard (hostCount == 1) == (localCount == count) else {
                throw Self.contradiction(
                    "WORLD_SIZE is \(count), LOCAL_WORLD_SIZE \(localCount) and GROUP_WORLD_SIZE "
                        + "\(hostCount): these contradict each other")
            }
        } else {
            hostCount = count / localCount
            hostRank = rank / localCount
            guard count % localCount == 0, rank % localCount == localRank else {
                throw Self.contradiction(
                    "WORLD_SIZE is \(count), LOCAL_WORLD_SIZE \(localCount), RANK \(rank) and "
                        + "LOCAL_RANK \(localRank): which host this is cannot be told from them "
                        + "without GROUP_RANK and GROUP_WORLD_SIZE")
            }
        }
    }

    /// Throws unless `torchrun` itself has started this process: what a rank starts has its variables too,
    /// and nobody but the user knows whether the other ranks do the same.
    func checkOrigin(_ variables: Variables) throws {
        let reason: String
        if runID == nil {
            reason = "not \(Self.runName), which torchrun sets as well"
        } else if Self.isShared(variables, OtherProcess.parent.variables) {
            reason = "so has the parent, \(OtherProcess.parent)"
        } else {
            return
        }
        throw ValidationError(
            "The environment has \(text), but \(reason): torchrun has not started this process itself. "
                + "Give '--torchrun' where every rank runs this command, so that the ranks of a host "
                + "share the work, or '--no-torchrun' where it is a command of its own.")
    }

    /// Whether another process was started with the same place: then one has it from the other.
    static func isShared(_ own: Variables, _ other: Variables) -> Bool {
        (names + [runName, restartName]).allSatisfy { own.plain($0) == other.plain($0) }
    }

    /// Whether the other variables are those of local rank 0 of this host in the same run.
    static func isFirst(_ other: Variables, beside own: Variables) -> Bool {
        let common = names.filter { !$0.hasSuffix("RANK") } + [runName, restartName, "GROUP_RANK"]
        return other.plain("LOCAL_RANK") == "0"
            && common.allSatisfy { own.plain($0) == other.plain($0) }
    }

    private static func number(_ variables: Variables, _ name: String, _ range: ClosedRange<Int>)
        throws -> Int
    {
        let text = variables.plain(name)
        guard let number = text.flatMap({ Int($0) }), range.contains(number) else {
            throw contradiction(
                "\(name) is " + (text.map { "'\($0)'" } ?? "missing")
                    + ": expected an integer from \(range.lowerBound) to \(range.upperBound)")
        }
        return number
    }

    private static func contradiction(_ sentence: String) -> ValidationError {
        ValidationError(
            "The variables of torchrun cannot be used: \(sentence). '--no-torchrun' leaves them out."
        )
    }
}
