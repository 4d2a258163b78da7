/// The host of an address: a name, an IPv4 or an IPv6 address. Equal hosts have equal texts.
public struct NetworkHost: Hashable, Sendable, CustomStringConvertible {
    /// What resolvers and sockets take: a name in small letters, or a number; IPv6 without brackets.
    public let text: String
    public let isIPv6: Bool

    private static let byteCountMax = 253
    private static let labelByteCountMax = 63

    /// Takes a name, an IPv4 address, or an IPv6 address with or without brackets. Zone ids (`%eth0`) mean
    /// something on one host only, and are refused.
    public init(_ text: String) throws(AddressFlaw) {
        let bytes = Array(text.utf8)
        let isBare = bytes.first != UInt8(ascii: "[") && bytes.contains(UInt8(ascii: ":"))
        if isBare { try self.init(ipv6: bytes[...]) } else { try self.init(bytes[...]) }
    }

    /// Takes what stands in a URL: an IPv6 address has brackets there.
    init(_ bytes: ArraySlice<UInt8>) throws(AddressFlaw) {
        guard let first = bytes.first else { throw AddressFlaw("the host is missing") }
        if first == UInt8(ascii: "[") {
            guard bytes.count > 1, bytes.last == UInt8(ascii: "]") else {
                throw AddressFlaw("the bracket before the IPv6 address is not closed")
            }
            try self.init(ipv6: bytes.dropFirst().dropLast())
        } else {
            try self.init(name: bytes)
        }
    }

    private init(ipv6 bytes: ArraySlice<UInt8>) throws(AddressFlaw) {
        guard !bytes.contains(UInt8(ascii: "%")) else {
            throw AddressFlaw(
                "the host \(AddressFlaw.quoted(bytes)) has a zone id, which means nothing elsewhere"
            )
        }
        guard let address = IPv6Address(bytes) else {
            throw AddressFlaw("the host \(AddressFlaw.quoted(bytes)) is no IPv6 address")
        }
        text = address.description
        isIPv6 = true
    }

    private init(name bytes: ArraySlice<UInt8>) throws(AddressFlaw) {
        guard bytes.allSatisfy(Self.isAllowed) else {
            throw AddressFlaw(
                "the host \(AddressFlaw.quoted(bytes)) has bytes other than letters, digits, dots, "
                    + "dashes and underscores")
        }
        // A dot at the end ends the search for names; it belongs to no label.
        let name = bytes.last == UInt8(ascii: ".") ? bytes.dropLast() : bytes
        let labels = name.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
        guard bytes.count <= Self.byteCountMax,
            labels.allSatisfy({ (1...Self.labelByteCountMax).contains($0.count) })
        else {
            throw AddressFlaw(
                "the host \(AddressFlaw.quoted(bytes)) is no name: between its dots are 1 to "
                    + "\(Self.labelByteCountMax) bytes, \(Self.byteCountMax) in all")
        }
        // Resolvers take such names for numbers, of forms that not all of them know.
        if let last = labels.last, Self.isNumber(last), IPv4Address(bytes) == nil {
            throw AddressFlaw(
                "the host \(AddressFlaw.quoted(bytes)) ends in a number, but is no IPv4 address")
        }
        text = String(decoding: bytes.map(Self.lowercased), as: UTF8.self)
        isIPv6 = false
    }

    /// As it stands in a URL.
    public var description: String { isIPv6 ? "[\(text)]" : text }

    private static func isAllowed(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."), UInt8(ascii: "-"),
            UInt8(ascii: "_"):
            true
        default: false
        }
    }

    /// Decimal, or hexadecimal after `0x`.
    private static func isNumber(_ label: ArraySlice<UInt8>) -> Bool {
        let prefix = label.prefix(2).map(lowercased)
        if prefix == Array("0x".utf8) {
            return label.dropFirst(2).allSatisfy { HexText.value(ofEither: $0) != nil }
        }
        return label.allSatisfy { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }
    }

    private static func lowercased(_ byte: UInt8) -> UInt8 {
        (UInt8(ascii: "A")...UInt8(ascii: "Z")).contains(byte) ? byte + 32 : byte
    }
}
