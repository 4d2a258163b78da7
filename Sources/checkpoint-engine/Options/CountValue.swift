import ArgumentParser

/// A count of at least one, of workers or threads.
struct CountValue: CommandValue {
    static let countMax = 4096
    static let rule = "an integer from 1 to \(countMax)"
    let count: Int

    init?(argument: String) {
        guard let count = Int(argument), (1...Self.countMax).contains(count) else { return nil }
        self.count = count
    }
}
