/// Orders tensors by their names, number by number: `layers.2.…` before `layers.10.…`.
enum ModuleOrder {
    /// The places of `names` in their order.
    static func sorted(_ names: [String]) -> [Int] {
        let keys = names.map(key)
        return names.indices.sorted { keys[$0].lexicographicallyPrecedes(keys[$1]) }
    }

    /// The bytes of the name with each run of digits led by its length, leading zeros included after
    /// the number itself: byte order of keys is then natural order of names, and names that differ have
    /// keys that differ.
    static func key(of name: String) -> [UInt8] {
        var key: [UInt8] = []
        key.reserveCapacity(name.utf8.count + 8)
        var digits: [UInt8] = []
        for byte in name.utf8 {
            if isDigit(byte) {
                digits.append(byte)
                continue
            }
            flush(&digits, into: &key)
            // A dot separates modules, so it goes before everything that continues a name.
            key.append(byte == UInt8(ascii: ".") ? 0 : byte)
        }
        flush(&digits, into: &key)
        return key
    }

    private static func isDigit(_ byte: UInt8) -> Bool {
        (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
    }

    private static func flush(_ digits: inout [UInt8], into key: inout [UInt8]) {
        guard !digits.isEmpty else { return }
        let zeros = digits.prefix { $0 == UInt8(ascii: "0") }.count
        let number = digits.dropFirst(zeros)
        key.append(UInt8(ascii: "0"))
        key.append(UInt8(clamping: number.count))
        key.append(contentsOf: number)
        key.append(UInt8(clamping: zeros))
        digits.removeAll(keepingCapacity: true)
    }
}
