import ArgumentParser

/// A place among several, from zero on.
struct RankValue: CommandValue {
    static let rule = "an integer from 0 on"
    let rank: Int

    init?(argument: String) {
        guard let rank = Int(argument), (0..<65_536).contains(rank) else { return nil }
        self.rank = rank
    }
}
