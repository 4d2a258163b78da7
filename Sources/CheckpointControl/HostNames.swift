/// The names under which clients may call a daemon that asks for no token.
///
/// A web page can have a name of its own lead to this machine and then call the daemon as its own
/// server (DNS rebinding). It cannot have its browser name an address instead.
struct HostNames: Sendable {
    private let names: Set<String>

    /// `authorities` are `HOST` or `HOST:PORT`.
    init(_ authorities: [String]) {
        names = Set(authorities.map { Self.host($0) } + ["localhost"])
    }

    /// Whether a request may name `authority`; old clients name none.
    func allow(_ authority: String?) -> Bool {
        guard let authority, !authority.isEmpty else { return true }
        if authority.hasPrefix("[") { return true }
        let host = Self.host(authority)
        return names.contains(host) || Self.isAddress(host)
    }

    /// The host alone, in lower case.
    private static func host(_ authority: String) -> String {
        let lower = authority.lowercased()
        guard let colon = lower.lastIndex(of: ":"), !lower.hasSuffix("]"),
            lower[lower.index(after: colon)...].utf8.allSatisfy({ (0x30...0x39).contains($0) })
        else { return lower }
        return String(lower[..<colon])
    }

    private static func isAddress(_ host: String) -> Bool {
        let parts = host.split(separator: ".", omittingEmptySubsequences: false)
        return parts.count == 4
            && parts.allSatisfy { part in
                part.utf8.allSatisfy({ (0x30...0x39).contains($0) }) && UInt8(part) != nil
            }
    }
}
