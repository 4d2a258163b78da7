/// What `doctor` found out about one thing.
struct Finding: Encodable {
    enum Level: String, Encodable {
        /// As it should be.
        case ok
        /// Worth knowing, neither good nor bad.
        case info
        /// Works, but not for everything.
        case warn
        /// Nothing works without it.
        case fail
    }

    let subject: String
    let level: Level
    let detail: String
    /// What to do about it.
    let remedy: String?

    init(_ subject: String, _ level: Level, _ detail: String, remedy: String? = nil) {
        self.subject = subject
        self.level = level
        self.detail = detail
        self.remedy = remedy
    }
}
