/// A set of numbers below a bound, as bits with summaries: each level has one bit for each word of
/// the one below that is not zero. Every call takes a step for each level, of which a million
/// numbers need four.
struct PlaceSet: Hashable, Sendable {
    let bound: Int
    private(set) var count: Int
    private var words: [UInt64]
    /// Where each level begins in ``words``: the numbers first, one word last.
    private let starts: [Int]

    /// None of the numbers below `bound`, or all of them.
    init(bound: Int, isFull: Bool = false) {
        var starts: [Int] = []
        var words: [UInt64] = []
        var bits = bound
        repeat {
            starts.append(words.count)
            let whole = bits / 64
            words += [UInt64](repeating: isFull ? .max : 0, count: whole)
            if bits % 64 > 0 || bits == 0 {
                words.append(isFull ? (1 << UInt64(bits % 64)) - 1 : 0)
            }
            bits = words.count - (starts.last ?? 0)
        } while bits > 1
        self.bound = bound
        self.count = isFull ? bound : 0
        self.words = words
        self.starts = starts
    }

    var isEmpty: Bool { count == 0 }

    func contains(_ number: Int) -> Bool { words[number >> 6] >> UInt64(number & 63) & 1 == 1 }

    /// Whether it was not in the set before.
    @discardableResult
    mutating func insert(_ number: Int) -> Bool {
        guard !contains(number) else { return false }
        count += 1
        var bit = number
        for start in starts {
            let word = start + bit >> 6
            let wasEmpty = words[word] == 0
            words[word] |= 1 << UInt64(bit & 63)
            if !wasEmpty { break }
            bit >>= 6
        }
        return true
    }

    /// Whether it was in the set before.
    @discardableResult
    mutating func remove(_ number: Int) -> Bool {
        guard contains(number) else { return false }
        count -= 1
        var bit = number
        for start in starts {
            let word = start + bit >> 6
            words[word] &= ~(1 << UInt64(bit & 63))
            if words[word] != 0 { break }
            bit >>= 6
        }
        return true
    }

    /// The smallest number of the set that is not below `number`.
    func first(from number: Int) -> Int? {
        guard number < bound else { return nil }
        var bit = number
        for (level, start) in starts.enumerated() {
            let word = bit >> 6
            let end = level + 1 < starts.count ? starts[level + 1] : words.count
            guard start + word < end else { return nil }
            let rest = words[start + word] & (UInt64.max << UInt64(bit & 63))
            if rest != 0 { return descend(from: level, to: word << 6 + rest.trailingZeroBitCount) }
            bit = word + 1
        }
        return nil
    }

    /// The smallest number below bit `bit` of a level.
    private func descend(from level: Int, to bit: Int) -> Int {
        var bit = bit
        for below in stride(from: level - 1, through: 0, by: -1) {
            bit = bit << 6 + words[starts[below] + bit].trailingZeroBitCount
        }
        return bit
    }
}
