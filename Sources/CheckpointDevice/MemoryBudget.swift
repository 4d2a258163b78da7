/// What the machine and its control group still have, read from the kernel's text files.
public struct MemoryBudget: Hashable, Sendable {
    /// Bytes that new allocations can take without swapping; `nil` where the kernel does not tell.
    public let availableByteCount: Int?

    public init(availableByteCount: Int?) {
        self.availableByteCount = availableByteCount
    }

    /// `meminfo` is the text of `/proc/meminfo`; the others are those of a version 2 control group
    /// (`memory.max`, `memory.current`, `memory.stat`), `nil` where there is none.
    ///
    /// What a group uses includes the cache of files that were read, which the kernel drops when
    /// memory is needed; the two lists of `groupStat` that hold it count as available.
    public init(
        meminfo: String?, groupMax: String?, groupCurrent: String?, groupStat: String? = nil
    ) {
        let machine = meminfo.flatMap(Self.availableByteCount(meminfo:))
        var group: Int?
        if let limit = groupMax.flatMap(Self.integer), let used = groupCurrent.flatMap(Self.integer)
        {
            let cache = groupStat.map(Self.cacheByteCount(groupStat:)) ?? 0
            group = max(0, limit - max(0, used - cache))
        }
        self.availableByteCount = [machine, group].compactMap(\.self).min()
    }

    static func availableByteCount(meminfo: String) -> Int? {
        for line in meminfo.split(separator: "\n") where line.hasPrefix("MemAvailable:") {
            let words = line.split(separator: " ")
            guard words.count == 3, words[2] == "kB", let kibibytes = Int(words[1]) else {
                return nil
            }
            return kibibytes.multipliedReportingOverflow(by: 1024).partialValue
        }
        return nil
    }

    static func cacheByteCount(groupStat: String) -> Int {
        var byteCount = 0
        for line in groupStat.split(separator: "\n") {
            let words = line.split(separator: " ")
            guard words.count == 2, ["active_file", "inactive_file"].contains(words[0]),
                let bytes = Int(words[1])
            else { continue }
            byteCount += max(0, bytes)
        }
        return byteCount
    }

    static func integer(_ text: String) -> Int? {
        text.split(whereSeparator: \.isWhitespace).first.flatMap { Int($0) }
    }
}
