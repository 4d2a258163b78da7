/// Where something listens on a network: a host and a port.
public struct NetworkAddress: Hashable, Sendable, CustomStringConvertible {
    public static let form = "HOST:PORT"
    private static let ports = 1...65_535

    public let host: NetworkHost
    /// From 1 to 65535.
    public let port: Int

    /// Takes `HOST:PORT` and `[IPV6]:PORT`.
    public init(_ text: String) throws(AddressFlaw) {
        do throws(AddressFlaw) {
            try self.init(Array(text.utf8)[...], portDefault: nil)
        } catch {
            throw AddressFlaw(in: text, form: Self.form, error)
        }
    }

    public init(host: NetworkHost, port: Int) throws(AddressFlaw) {
        guard Self.ports.contains(port) else {
            throw AddressFlaw("the port \(port) is not a number from 1 to 65535")
        }
        self.host = host
        self.port = port
    }

    /// Without `portDefault` the port has to be named.
    init(_ bytes: ArraySlice<UInt8>, portDefault: Int?) throws(AddressFlaw) {
        let colon = UInt8(ascii: ":")
        var hostEnd = bytes.firstIndex(of: colon) ?? bytes.endIndex
        if bytes.first == UInt8(ascii: "[") {
            guard let bracket = bytes.firstIndex(of: UInt8(ascii: "]")) else {
                throw AddressFlaw("the bracket before the IPv6 address is not closed")
            }
            hostEnd = bracket + 1
        } else if bytes[hostEnd...].dropFirst().contains(colon) {
            throw AddressFlaw(
                "it has several colons; an IPv6 address stands in brackets, as in [::1]:80")
        }
        host = try NetworkHost(bytes[..<hostEnd])
        let rest = bytes[hostEnd...]
        guard let first = rest.first else {
            guard let portDefault else { throw AddressFlaw("the port is missing") }
            port = portDefault
            return
        }
        guard first == colon else {
            throw AddressFlaw(
                "a colon and the port have to follow the address in brackets, not "
                    + AddressFlaw.quoted(rest))
        }
        guard let number = DecimalText.value(of: rest.dropFirst()), Self.ports.contains(number)
        else {
            throw AddressFlaw(
                "the port \(AddressFlaw.quoted(rest.dropFirst())) is not a number from 1 to 65535")
        }
        port = number
    }

    public var description: String { "\(host):\(port)" }
}
