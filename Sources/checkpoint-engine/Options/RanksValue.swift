import ArgumentParser

/// GPUs of engines' workers: `0,1,2,3` for one engine, `0,1/2,3` for two.
struct RanksValue: CommandValue {
    static let rule = "GPUs such as 0,1 or, for two engines, 0,1/2,3, each named once"
    private static let rankMax = 65_535

    let lists: [[Int]]

    init?(argument: String) {
        let lists = argument.split(separator: "/", omittingEmptySubsequences: false).map { list in
            list.split(separator: ",", omittingEmptySubsequences: false).map { Int($0) ?? -1 }
        }
        let all = lists.flatMap(\.self)
        guard all.allSatisfy({ (0...Self.rankMax).contains($0) }), Set(all).count == all.count
        else { return nil }
        self.lists = lists
    }
}
