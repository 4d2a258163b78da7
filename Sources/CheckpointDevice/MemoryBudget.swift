/// What the machine and its control group still have, read from the kernel's text files.
public struct MemoryBudget: Hashable, Sendable {
    /// Bytes that new allocations can take without swapping; `nil` where the kernel does not tell.
    public let availableByteCount: Int?

    public init(availableByteCount: Int?) {
        self.availableByteCount = availableByteCount
    }

    /// `meminfo` is the text of `/proc/meminfo`; the other two are those of a version 2 control
    /// group, `nil` where there is none.
    public init(meminfo: String?, groupMax: String?, groupCurrent: String?) {
        let machine = meminfo.flatMap(Self.availableByteCount(meminfo:))
        var group: Int?
        if let limit = groupMax.flatMap(Self.integer), let used = groupCurrent.flatMap(Self.integer)
        {
            group = max(0, limit - used)
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

    static func integer(_ text: String) -> Int? {
        text.split(whereSeparator: \.isWhitespace).first.flatMap { Int($0) }
    }
}
