import Glibc
import Testing

@testable import CheckpointNative

/// Other tests open descriptors beside these, so nothing here depends on a few.
@Suite(.serialized) struct DescriptorsTests {
    init() { Descriptors.raiseLimit() }

    @Test func theLimitIsTheHardOne() {
        let limits = SystemFile.text("/proc/self/limits") ?? ""
        let words = limits.split(separator: "\n").first { $0.hasPrefix("Max open files") }?
            .split(separator: " ").compactMap { Int($0) }
        #expect(words?.count == 2)
        #expect(words?.first == words?.last.map { min($0, 1 << 20) })
        #expect(Descriptors.limit == words?.first)
    }

    @Test func openDescriptorsAreCounted() {
        let before = Descriptors.openCount
        let opened = (0..<100).map { _ in dup(0) }
        defer { for descriptor in opened { close(descriptor) } }
        #expect(opened.allSatisfy { $0 >= 0 })
        #expect(abs(Descriptors.openCount - before - 100) < 50)
    }

    @Test func whatIsNotThereIsRefusedByTheNameOfTheLimit() throws {
        let limit = Descriptors.limit
        let error = #expect(throws: SystemShortage.self) {
            try Descriptors.reserve(limit, for: "this test")
        }
        let message = try #require(error?.message)
        #expect(message.contains("this test needs \(limit) file descriptors"))
        #expect(message.contains("RLIMIT_NOFILE (ulimit -n) is \(limit)"))
    }

    /// What is not kept for connections.
    private var room: Int { Descriptors.limit - Descriptors.connectionShare }

    @Test func whatIsPromisedIsNotPromisedTwice() throws {
        let most = room * 5 / 8
        var first: DescriptorReservation? = try Descriptors.reserve(most, for: "one")
        #expect(throws: SystemShortage.self) { try Descriptors.reserve(most, for: "another") }
        first?.reduce(to: room / 16)
        _ = try Descriptors.reserve(most, for: "another")
        first?.reduce(to: room)
        #expect(throws: SystemShortage.self) { try Descriptors.reserve(room, for: "another") }
        first = nil
        _ = try Descriptors.reserve(room * 3 / 4, for: "another")
    }

    @Test func theLastOnesAreForOthers() throws {
        let place = CInt(room / 2)
        #expect(!Descriptors.isKeptForOthers(place))
        #expect(Descriptors.isKeptForOthers(CInt(room)))
        var reservation: DescriptorReservation? = try Descriptors.reserve(
            room * 5 / 8, for: "one")
        #expect(reservation != nil)
        #expect(Descriptors.isKeptForOthers(place))
        reservation = nil
        #expect(!Descriptors.isKeptForOthers(place))
    }
}

struct ThreadLimitsTests {
    @Test func theGroupsThatCountProcessesAreFoundUpToTheRoot() {
        #expect(
            ThreadLimits.folders(of: "9:name=systemd:/\n8:cpu,pids:/a/b\n4:memory:/x\n") == [
                "/sys/fs/cgroup/pids/a/b", "/sys/fs/cgroup/pids/a", "/sys/fs/cgroup/pids",
            ])
        #expect(
            ThreadLimits.folders(of: "0::/kubepods/pod:1\n") == [
                "/sys/fs/cgroup/kubepods/pod:1", "/sys/fs/cgroup/kubepods", "/sys/fs/cgroup",
            ])
        #expect(ThreadLimits.folders(of: "nonsense\n\n") == [])
    }

    @Test func aRefusedThreadIsToldWithTheLimitsAndTheRemedy() {
        let message = ThreadLimits.shortage(errorNumber: EAGAIN).message
        #expect(message.contains("pthread_create: EAGAIN"))
        #expect(message.contains("kernel.threads-max"))
        #expect(message.contains("raise the limit"))
    }
}
