import Testing

@testable import CheckpointControl

@Suite("Places for connections")
struct ConnectionPlacesTests {
    /// Something that has an identity, for a channel.
    private final class Channel: Sendable {}

    private let channels = (0..<8).map { _ in Channel() }

    private func id(_ index: Int) -> ObjectIdentifier { ObjectIdentifier(channels[index]) }

    private func places(strangers: Int = 2, readers: Int = 2, administrators: Int = 2)
        -> ConnectionPlaces
    {
        var limits = ConnectionPlaces.Limits(descriptorCountMax: 1024)
        limits.strangers = strangers
        limits.readers = readers
        limits.administrators = administrators
        return ConnectionPlaces(limits: limits)
    }

    @Test func theOldestStrangerMakesRoom() {
        var places = places()
        #expect(places.open(id(0)) == nil)
        #expect(places.open(id(1)) == nil)
        #expect(places.open(id(2)) == id(0))
        #expect(places.party(of: id(0)) == nil)
        #expect(places.count(of: .stranger) == 2)
        // One whose request is being answered is spared, as long as there is another.
        places.begin(id(1))
        #expect(places.open(id(3)) == id(2))
        places.begin(id(3))
        #expect(places.open(id(4)) == id(1))
    }

    @Test func strangersTakeNoPlaceOfOthers() {
        var places = places()
        _ = places.open(id(0))
        #expect(places.recognise(id(0), as: .administrator) == .admitted(closing: nil))
        for index in 1..<8 { _ = places.open(id(index)) }
        #expect(places.party(of: id(0)) == .administrator)
        #expect(places.count(of: .stranger) == 2)
        #expect(places.count(of: .administrator) == 1)
    }

    @Test func anIdleConnectionOfTheSamePartyMakesRoom() {
        var places = places(strangers: 8)
        for index in 0..<3 { _ = places.open(id(index)) }
        #expect(places.recognise(id(0), as: .reader) == .admitted(closing: nil))
        #expect(places.recognise(id(1), as: .reader) == .admitted(closing: nil))
        // The one that was in use a moment ago stays.
        places.begin(id(0))
        places.end(id(0))
        #expect(places.recognise(id(2), as: .reader) == .admitted(closing: id(1)))
        #expect(places.recognise(id(2), as: .reader) == .admitted(closing: nil))
    }

    @Test func nobodyIsCutOffInTheMiddleOfARequest() {
        var places = places(strangers: 8)
        for index in 0..<4 { _ = places.open(id(index)) }
        for index in 0..<2 {
            places.begin(id(index))
            #expect(places.recognise(id(index), as: .administrator) == .admitted(closing: nil))
        }
        #expect(places.recognise(id(2), as: .administrator) == .full)
        #expect(places.party(of: id(2)) == .stranger)
        // Readers have places of their own.
        #expect(places.recognise(id(3), as: .reader) == .admitted(closing: nil))
        places.end(id(1))
        #expect(places.recognise(id(2), as: .administrator) == .admitted(closing: id(1)))
    }

    @Test func aClosedConnectionLeavesItsPlace() {
        var places = places()
        _ = places.open(id(0))
        _ = places.open(id(1))
        places.close(id(0))
        places.close(id(0))
        #expect(places.open(id(2)) == nil)
        // What happens on one that is gone changes nothing.
        places.begin(id(0))
        places.end(id(0))
        #expect(places.recognise(id(0), as: .reader) == .admitted(closing: nil))
        #expect(places.count(of: .reader) == 0)
    }

    @Test(arguments: [0, 16, 256, 1024, 1 << 20, Int.max])
    func limitsFollowTheDescriptors(count: Int) {
        let limits = ConnectionPlaces.Limits(descriptorCountMax: count)
        for party in Party.allCases { #expect(limits[party] >= 4) }
        #expect(limits.total <= max(12, count / 2))
        #expect(limits.strangers <= 128)
        if count >= 1 << 14 { #expect(limits.readers == 4096) }
    }
}
