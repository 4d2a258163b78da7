/// Who owes a write to memory owns that memory. Each endpoint of the receiver is a reader, which may
/// write the chunks of its batches until it has answered or is dead; nobody else gets them before.
extension PullSchedule {
    /// Whether a batch has not ended: neither by ``finish(_:at:wrong:)`` or ``fail(_:at:)`` nor with
    /// its reader.
    public func isUnderWay(_ id: Int) -> Bool { flights[id] != nil }

    /// Notes that the reader of a batch has answered: the batch is the caller's from now on, who
    /// looks at its bytes and ends it, whatever becomes of the reader. `false` when the batch has
    /// ended with its reader, and the bytes are not to be used.
    public mutating func answer(_ id: Int) -> Bool {
        flights[id]?.isOwed = false
        return isUnderWay(id)
    }

    /// Gives an endpoint of the receiver no more batches: its reader does not answer, or is gone.
    /// What it owes it keeps.
    public mutating func close(_ receiver: Int) { closed.insert(receiver) }

    /// Notes that the reader of a closed endpoint is dead: the chunks that it owed are pending again.
    public mutating func settle(_ receiver: Int, at seconds: Double) {
        precondition(closed.contains(receiver), "a reader gets nothing more before it is dead")
        let owed = flights.values.filter { $0.isOwed && $0.batch.receiverEndpoint == receiver }
        for id in owed.map(\.batch.id).sorted() { fail(id, at: seconds) }
    }

    /// Notes that a closed endpoint has another reader.
    public mutating func reopen(_ receiver: Int) {
        precondition(
            !flights.values.contains { $0.isOwed && $0.batch.receiverEndpoint == receiver },
            "a reader takes no other one's place before that is dead")
        closed.remove(receiver)
    }

    /// The receiver's endpoints whose readers owe batches of a retired source.
    public func receivers(draining source: Int) -> Set<Int> {
        guard sources[source].isRetired else { return [] }
        return Set(
            flights.values.lazy.filter { $0.isOwed && $0.batch.source == source }
                .map(\.batch.receiverEndpoint))
    }
}
