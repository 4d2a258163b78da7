/// Four numbers with dots; no short forms, no octal ones.
struct IPv4Address: Hashable, Sendable {
    let octets: [UInt8]

    init?(_ bytes: ArraySlice<UInt8>) {
        let parts = bytes.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
        guard parts.count == 4 else { return nil }
        var octets: [UInt8] = []
        for part in parts {
            guard (1...3).contains(part.count),
                part.count == 1 || part.first != UInt8(ascii: "0"),
                let number = DecimalText.value(of: part), let octet = UInt8(exactly: number)
            else { return nil }
            octets.append(octet)
        }
        self.octets = octets
    }
}

/// Eight groups of 16 bits, as text in the form of RFC 5952.
struct IPv6Address: Hashable, Sendable, CustomStringConvertible {
    private static let groupCount = 8
    let groups: [UInt16]

    /// Takes every form of RFC 4291, without brackets and zone.
    init?(_ bytes: ArraySlice<UInt8>) {
        let colon = UInt8(ascii: ":")
        let gap = bytes.indices.dropLast().first { bytes[$0] == colon && bytes[$0 + 1] == colon }
        guard let gap else {
            guard let groups = Self.groups(bytes, endsInIPv4: true),
                groups.count == Self.groupCount
            else { return nil }
            self.groups = groups
            return
        }
        guard let head = Self.groups(bytes[..<gap], endsInIPv4: false),
            let tail = Self.groups(bytes[(gap + 2)...], endsInIPv4: true),
            head.count + tail.count < Self.groupCount
        else { return nil }
        let zeros = [UInt16](repeating: 0, count: Self.groupCount - head.count - tail.count)
        groups = head + zeros + tail
    }

    private static func groups(_ bytes: ArraySlice<UInt8>, endsInIPv4: Bool) -> [UInt16]? {
        if bytes.isEmpty { return [] }
        let parts = bytes.split(
            separator: UInt8(ascii: ":"), maxSplits: groupCount, omittingEmptySubsequences: false)
        var groups: [UInt16] = []
        for (place, part) in parts.enumerated() {
            if endsInIPv4, place == parts.count - 1, let address = IPv4Address(part) {
                let octets = address.octets.map(UInt16.init)
                groups += [octets[0] << 8 | octets[1], octets[2] << 8 | octets[3]]
                continue
            }
            guard (1...4).contains(part.count) else { return nil }
            var group: UInt16 = 0
            for digit in part {
                guard let value = HexText.value(ofEither: digit) else { return nil }
                group = group << 4 | UInt16(value)
            }
            groups.append(group)
        }
        return groups
    }

    /// The first of the longest runs of zeros is left out.
    var description: String {
        var gap = 0..<0
        var start = 0
        while start < groups.count {
            let end = groups[start...].firstIndex { $0 != 0 } ?? groups.count
            if end - start > max(1, gap.count) { gap = start..<end }
            start = max(end, start + 1)
        }
        func text(_ groups: ArraySlice<UInt16>) -> String {
            groups.map { String($0, radix: 16) }.joined(separator: ":")
        }
        guard !gap.isEmpty else { return text(groups[...]) }
        return text(groups[..<gap.lowerBound]) + "::" + text(groups[gap.upperBound...])
    }
}

/// Small numbers without a sign.
enum DecimalText {
    private static let digitCountMax = 9

    /// `nil` for anything but 1 to 9 digits.
    static func value(of bytes: ArraySlice<UInt8>) -> Int? {
        guard (1...digitCountMax).contains(bytes.count) else { return nil }
        var value = 0
        for byte in bytes {
            guard (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) else { return nil }
            value = value * 10 + Int(byte - UInt8(ascii: "0"))
        }
        return value
    }
}
