/// The updates that the engine remembers, oldest first; ended ones are forgotten beyond a limit.
struct UpdateHistory {
    private var records: [String: UpdateRecord] = [:]
    private var order: [String] = []
    private var nextNumber = 1
    private let countMax: Int

    init(countMax: Int) { self.countMax = countMax }

    subscript(id: String) -> UpdateRecord? { records[id] }

    /// `update-1`, `update-2`, …
    mutating func nextID() -> String {
        defer { nextNumber += 1 }
        return "update-\(nextNumber)"
    }

    mutating func append(_ record: UpdateRecord) {
        records[record.id] = record
        order.append(record.id)
        while order.count > countMax,
            let ended = order.firstIndex(where: { records[$0]?.status.state != .running })
        {
            records[order.remove(at: ended)] = nil
        }
    }
}
