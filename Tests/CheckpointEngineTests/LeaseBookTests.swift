import CheckpointModel
import Testing

@testable import CheckpointEngine

/// Times are the test's: nothing waits.
struct LeaseBookTests {
    private let start = ContinuousClock.now
    private let name: CheckpointName

    init() throws { name = try #require(CheckpointName("step")) }

    private func begin(
        _ book: inout LeaseBook, _ incarnation: String = "i", reader: String? = nil,
        peer: String? = nil, byteCount: Int = 1 << 30, at seconds: Double = 0
    ) throws -> String {
        try book.begin(
            name, incarnation: incarnation, byteCount: byteCount, reader: reader, peer: peer,
            at: start + .seconds(seconds)
        ).id
    }

    /// Renews all and tells whose turn it is.
    private func active(_ book: inout LeaseBook, _ ids: [String], at seconds: Double) -> [Bool] {
        let now = start + .seconds(seconds)
        for id in ids { book.renew(id, at: now) }
        return ids.map { book.isActive($0, at: now) }
    }

    @Test func theFirstReadsAndTheOthersFollow() throws {
        var book = LeaseBook()
        let ids = [
            try begin(&book, reader: "http://a"), try begin(&book, reader: nil),
            try begin(&book, reader: "http://c"), try begin(&book, reader: "http://d"),
        ]
        #expect(Set(ids).count == 4)
        #expect(active(&book, ids, at: 0) == [true, false, false, false])
        #expect(
            ids.map { book.readers(beside: $0) } == [
                [], ["http://a"], ["http://a"], ["http://a", "http://c"],
            ])
        let ended = book.end(ids[0])
        let again = book.end(ids[0])
        #expect(ended && !again)
        #expect(active(&book, ids, at: 1) == [false, true, false, false])
        #expect(book.readers(beside: ids[3]) == ["http://c"])
        #expect(book.readers(beside: ids[0]).isEmpty && book.readers(beside: "none").isEmpty)
        #expect(book.count == 3 && book.begunCount == 4)
    }

    @Test func readersOfOtherBytesAreNoHelp() throws {
        var book = LeaseBook()
        _ = try begin(&book, "old", reader: "http://a")
        _ = try begin(&book, "new", reader: "http://b")
        let last = try begin(&book, "new", reader: "http://c")
        #expect(book.readers(beside: last) == ["http://b"])
        #expect(active(&book, [last], at: 0) == [false])
        book.end(incarnation: "new")
        #expect(book.count == 1)
        let found = book.find(last, at: start)
        #expect(found?.id == nil)
    }

    @Test func whoDoesNotGoOnIsGone() throws {
        var book = LeaseBook()
        let first = try begin(&book, reader: "http://a")
        let second = try begin(&book, reader: "http://b", at: 5)
        let early = book.find(first, at: start + .seconds(9.9))
        #expect(early?.reader == "http://a")
        book.renew(second, at: start + .seconds(9))
        let late = book.find(first, at: start + .seconds(10))
        #expect(late?.id == nil)
        #expect(active(&book, [second], at: 10) == [true])
        #expect(book.readers(beside: second).isEmpty)
        book.renew(first, at: start + .seconds(10))
        #expect(book.count == 1)
        let renewed = book.find(second, at: start + .seconds(19.9))
        #expect(renewed?.id == second)
        book.dropEnded(at: start + .seconds(20))
        #expect(book.count == 0)
    }

    // MARK: Turns

    @Test func whoReadsOnKeepsItsTurnAndWhoDoesNotGivesWay() throws {
        var book = LeaseBook()
        let ids = [try begin(&book), try begin(&book), try begin(&book)]
        for second in 0..<30 {
            let now = Double(second)
            #expect(active(&book, ids, at: now) == [true, false, false])
            book.renew(ids[0], received: second + 1, at: start + .seconds(now))
        }
        // The same count again is no progress.
        book.renew(ids[0], received: 30, at: start + .seconds(31))
        #expect(active(&book, ids, at: 38.9) == [true, false, false])
        #expect(active(&book, ids, at: 39) == [false, true, false])
        #expect(active(&book, ids, at: 48.9) == [false, true, false])
        #expect(active(&book, ids, at: 49) == [false, false, true])
        // One that has read goes before those that got nothing.
        #expect(active(&book, ids, at: 59) == [true, false, false])
        let again = book.find(ids[0], at: start + .seconds(59))
        #expect(again?.receivedByteCount == 30)
    }

    @Test func aTurnIsLongWhereNobodyWaits() throws {
        var book = LeaseBook()
        let only = try begin(&book)
        for second in stride(from: 0.0, to: 3600, by: 9) {
            #expect(active(&book, [only], at: second) == [true])
        }
        let other = try begin(&book, at: 3600)
        #expect(active(&book, [only, other], at: 3600) == [false, true])
    }

    /// Whatever a reader says, others have their turn when it could have read all of it.
    @Test func aTurnEndsAlsoForWhoSaysThatItReads() throws {
        var book = LeaseBook()
        let liar = try begin(&book, byteCount: 1_000_000_000)
        let other = try begin(&book)
        for second in 0..<40 {
            let now = start + .seconds(second)
            book.renew(liar, received: second + 1, at: now)
            book.renew(other, at: now)
            let isActive = book.isActive(other, at: now)
            #expect(!isActive)
        }
        #expect(active(&book, [liar, other], at: 40) == [false, true])
        book.renew(liar, received: .max, at: start + .seconds(40))
        let found = book.find(liar, at: start + .seconds(40))
        #expect(found?.receivedByteCount == 1_000_000_000)
    }

    @Test func manyLeasesOfOneThatDoesNotReadAreOneTurn() throws {
        var book = LeaseBook()
        var ids: [String] = []
        for _ in 0..<LeaseBook.peerCountMax { ids.append(try begin(&book, peer: "10.0.0.1")) }
        #expect(throws: LeaseBook.Refusal.tooManyOfOne) {
            _ = try begin(&book, peer: "10.0.0.1")
        }
        let honest = try begin(&book, peer: "10.0.0.2")
        #expect(active(&book, ids + [honest], at: 5).first == true)
        #expect(active(&book, ids + [honest], at: 14).last == false)
        #expect(active(&book, ids + [honest], at: 15).last == true)
        for second in 16..<70 {
            book.renew(honest, received: second, at: start + .seconds(second))
            #expect(active(&book, ids + [honest], at: Double(second)).last == true)
        }
    }

    // MARK: Limits

    @Test func thereAreNotEndlesslyMany() throws {
        var book = LeaseBook()
        for _ in 0..<LeaseBook.countMax { _ = try begin(&book) }
        #expect(throws: LeaseBook.Refusal.tooMany) { _ = try begin(&book) }
        _ = try begin(&book, at: 10)
        #expect(book.count == 1)
        for _ in 0..<LeaseBook.readerLeaseCountMax {
            _ = try begin(&book, reader: "http://a", at: 10)
        }
        #expect(throws: LeaseBook.Refusal.tooManyOfOne) {
            _ = try begin(&book, reader: "http://a", at: 10)
        }
        _ = try begin(&book, reader: "http://b", at: 10)
    }

    @Test func aReaderIsToldOfAFewOthers() throws {
        var book = LeaseBook()
        for number in 0..<2000 { _ = try begin(&book, reader: "http://a:\(number)") }
        let last = try begin(&book, reader: "http://a:5")
        let told = book.readers(beside: last)
        #expect(told.count == LeaseBook.readerCountMax && Set(told).count == told.count)
        #expect(told.contains("http://a:0") && told.contains("http://a:1999"))
        #expect(!told.contains("http://a:5"))
    }

    @Test func whoHasReadIsToldToThoseBefore() throws {
        var book = LeaseBook()
        let first = try begin(&book, reader: "http://a")
        let second = try begin(&book, reader: "http://b")
        #expect(book.readers(beside: first) == [])
        book.renew(second, received: 1, at: start)
        #expect(book.readers(beside: first) == ["http://b"])
    }
}
