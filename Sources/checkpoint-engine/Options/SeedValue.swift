import ArgumentParser

/// What decides pseudo-random bytes.
struct SeedValue: CommandValue {
    static let rule = "an integer from 0 to 2^64 - 1"
    let seed: UInt64

    init?(argument: String) {
        guard let seed = UInt64(argument) else { return nil }
        self.seed = seed
    }
}
