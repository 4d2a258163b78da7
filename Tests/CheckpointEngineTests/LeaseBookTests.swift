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
        at seconds: Double = 0
    ) throws -> String {
        let lease = book.begin(
            name, incarnation: incarnation, reader: reader, at: start + .seconds(seconds))
        return try #require(lease).id
    }

    @Test func theFirstReadsAndTheOthersFollow() throws {
        var book = LeaseBook()
        let ids = [
            try begin(&book, reader: "http://a"), try begin(&book, reader: nil),
            try begin(&book, reader: "http://c"), try begin(&book, reader: "http://d"),
        ]
        #expect(Set(ids).count == 4)
        #expect(ids.map { book.isActive($0) } == [true, false, false, false])
        #expect(
            ids.map { book.readers(before: $0) } == [
                [], ["http://a"], ["http://a"], ["http://a", "http://c"],
            ])
        let ended = book.end(ids[0])
        let again = book.end(ids[0])
        #expect(ended && !again)
        #expect(book.isActive(ids[1]) && !book.isActive(ids[0]))
        #expect(book.readers(before: ids[3]) == ["http://c"])
        #expect(book.readers(before: ids[0]).isEmpty && book.readers(before: "none").isEmpty)
        #expect(book.count == 3 && book.begunCount == 4)
    }

    @Test func readersOfOtherBytesAreNoHelp() throws {
        var book = LeaseBook()
        _ = try begin(&book, "old", reader: "http://a")
        _ = try begin(&book, "new", reader: "http://b")
        let last = try begin(&book, "new", reader: "http://c")
        #expect(book.readers(before: last) == ["http://b"])
        #expect(!book.isActive(last))
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
        #expect(book.isActive(second))
        #expect(book.readers(before: second).isEmpty)
        book.renew(first, at: start + .seconds(10))
        #expect(book.count == 1)
        let renewed = book.find(second, at: start + .seconds(18.9))
        #expect(renewed?.id == second)
        book.dropEnded(at: start + .seconds(19))
        #expect(book.count == 0)
    }

    @Test func thereAreNotEndlesslyMany() throws {
        var book = LeaseBook()
        for _ in 0..<LeaseBook.countMax { _ = try begin(&book) }
        let refused = book.begin(name, incarnation: "i", reader: nil, at: start)
        #expect(refused?.id == nil)
        _ = try begin(&book, at: 10)
        #expect(book.count == 1)
    }
}
