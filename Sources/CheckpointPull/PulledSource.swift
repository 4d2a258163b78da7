/// A source as a pull knows it.
struct PulledSource: Sendable {
    let address: SourceAddress
    /// Whether the request named it, or the metas did. Another source has only told of the others: they bring
    /// bytes, and those that were named tell what these have to be.
    let isNamed: Bool
    var lease: SourceLease?
    /// Its number in the schedule while it is read.
    var number: Int?
    /// Why it is not read, or was not for a while.
    var reason: String?
    /// Whether it may be asked again.
    var isWorthwhile = true
    /// When it may.
    var notBefore: ContinuousClock.Instant?
    /// How often bytes from it were wrong.
    var wrongCount = 0
    /// Whether it is asked just now why they were.
    var isDoubted = false
    /// The registration whose bytes have been read.
    var incarnation: String?
    /// What it says that its bytes are.
    var content: String?
    var byteCount = 0
    /// The blocks of checksums that it is asked for just now.
    var asked: [Int: Task<Result<[UInt32], SourceClient.Refusal>, Never>] = [:]

    /// Waits no more for checksums.
    mutating func cancelAsked() {
        for task in asked.values { task.cancel() }
        asked = [:]
    }
}
