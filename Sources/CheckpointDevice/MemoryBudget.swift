/// What the machine and the control groups of this process still have, read from the kernel's text files.
public struct MemoryBudget: Hashable, Sendable {
    /// Who has the least.
    public enum Source: Hashable, Sendable {
        case machine
        /// A control group: its directory and its limit.
        case group(path: String, limitByteCount: Int)
    }

    /// Bytes that new allocations can take without swapping; `nil` where the kernel does not tell.
    public let availableByteCount: Int?
    public let source: Source

    public init(availableByteCount: Int?, source: Source = .machine) {
        self.availableByteCount = availableByteCount
        self.source = source
    }

    /// The budget of this process now.
    public static func current() -> MemoryBudget { MemoryBudget(KernelText.read) }

    /// `read` gives the text of a file; `nil` where there is none.
    init(_ read: (_ path: String) -> String?) {
        var budget = MemoryBudget(
            availableByteCount: read("/proc/meminfo").flatMap(Self.availableByteCount(meminfo:)))
        let groups = ControlGroups(read).directories(of: "memory")
        for group in groups.compactMap({ MemoryGroup($0, read) })
        where group.freeByteCount < budget.availableByteCount ?? Int.max {
            budget = MemoryBudget(
                availableByteCount: group.freeByteCount,
                source: .group(path: group.path, limitByteCount: group.limitByteCount))
        }
        self = budget
    }

    private static func availableByteCount(meminfo: String) -> Int? {
        for line in meminfo.split(separator: "\n") where line.hasPrefix("MemAvailable:") {
            let words = line.split(separator: " ")
            guard words.count == 3, words[2] == "kB", let kibibytes = Int(words[1]) else {
                return nil
            }
            let (count, overflow) = kibibytes.multipliedReportingOverflow(by: 1024)
            return overflow ? nil : count
        }
        return nil
    }
}

extension MemoryBudget.Source: CustomStringConvertible {
    public var description: String {
        switch self {
        case .machine: "this machine's memory"
        case .group(let path, let limit): "the memory limit of \(limit) bytes of \(path)"
        }
    }
}
