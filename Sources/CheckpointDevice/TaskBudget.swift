/// How many processes and threads the control groups of this process still allow.
public struct TaskBudget: Hashable, Sendable {
    /// `nil` where no group has a limit.
    public let availableCount: Int?
    /// The directory of the group that allows the fewest.
    public let path: String?

    /// The budget of this process now.
    public static func current() -> TaskBudget { TaskBudget(KernelText.read) }

    /// `read` gives the text of a file; `nil` where there is none.
    init(_ read: (_ path: String) -> String?) {
        let budgets = ControlGroups(read).directories(of: "pids").compactMap {
            directory -> (count: Int, path: String)? in
            guard let limit = read("\(directory.path)/pids.max").flatMap(ControlGroups.integer),
                let used = read("\(directory.path)/pids.current").flatMap(ControlGroups.integer)
            else { return nil }
            return (max(0, limit - max(0, used)), directory.path)
        }
        let least = budgets.min { $0.count < $1.count }
        availableCount = least?.count
        path = least?.path
    }
}
