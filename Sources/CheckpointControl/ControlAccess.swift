/// Who may call the daemon.
public enum ControlAccess: Sendable {
    /// Whoever reaches the address.
    case everyone
    /// Whoever shows a token: the administrator's allows everything, the reader's to look and to read.
    case tokens(administrator: BearerToken, reader: BearerToken? = nil)

    /// As whom a request speaks that carries this `Authorization` header.
    func party(of header: String?) -> Party {
        switch self {
        case .everyone: return .administrator
        case .tokens(let administrator, let reader):
            if administrator.isCarried(by: header) { return .administrator }
            if let reader, reader.isCarried(by: header) { return .reader }
            return .stranger
        }
    }
}

/// What a caller has shown to be, from the least to the most.
enum Party: Int, CaseIterable, Comparable {
    case stranger
    case reader
    case administrator

    static func < (one: Party, other: Party) -> Bool { one.rawValue < other.rawValue }
}
