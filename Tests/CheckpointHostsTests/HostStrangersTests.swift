import NIOCore
import NIOPosix
import Synchronization
import Testing

@testable import CheckpointHosts

/// Who comes to the rendezvous and does not belong to the group.
struct HostStrangersTests {
    /// Writes to the hub, and tells when that has closed the connection.
    private struct Stranger {
        let channel: any Channel

        init(port: Int) async throws {
            channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
                .connect(host: "127.0.0.1", port: port).get()
        }

        func write(_ bytes: [UInt8]) {
            channel.writeAndFlush(ByteBuffer(bytes: bytes), promise: nil)
        }

        /// Throws when the connection is still there after `time`.
        func closed(within time: Duration) async throws {
            try await withThrowingTaskGroup(of: Bool.self) { group in
                group.addTask {
                    try await channel.closeFuture.get()
                    return true
                }
                group.addTask {
                    try await Task.sleep(for: time)
                    try await channel.close()
                    return false
                }
                let isClosed = try await group.next()
                #expect(isClosed == true, "the hub has not closed the connection")
                group.cancelAll()
            }
        }
    }

    private static let token = "a secret of the group"

    private static func configuration(_ rank: Int, port: Int) -> HostGroupConfiguration {
        HostGroupConfiguration(
            address: "127.0.0.1", port: port, hostCount: 2, hostRank: rank, name: "node-\(rank)",
            token: token)
    }

    /// Runs `body` with the port of a hub, and then lets the other host come.
    private static func withHub(_ body: (Int) async throws -> Void) async throws {
        let port = HostGroupTests.nextPort.wrappingAdd(1, ordering: .relaxed).newValue
        let hub = try HostGroup(configuration(0, port: port))
        try await hub.start()
        try await body(port)
        let other = try HostGroup(configuration(1, port: port))
        try await other.start()
        async let given = hub.exchange("scope", "step", [1], deadline: .now + .seconds(10))
        let taken = try await other.exchange("scope", "step", [2], deadline: .now + .seconds(10))
        #expect(taken == [[1], [2]])
        let same = try await given
        #expect(same == taken)
        await other.close()
        await hub.close()
    }

    private static func frame(_ message: HostMessage) throws -> [UInt8] {
        var buffer = ByteBuffer()
        try HostFrames.write(message, to: &buffer)
        return Array(buffer.readableBytesView)
    }

    @Test func announcingAGigabyteEndsTheConnection() async throws {
        try await Self.withHub { port in
            let stranger = try await Stranger(port: port)
            stranger.write([0x3f, 0, 0, 0, 0, 0, 0, 24] + Array("{\"type\":\"put\"".utf8))
            try await stranger.closed(within: .seconds(3))
        }
    }

    @Test func anotherTokenEndsTheConnection() async throws {
        try await Self.withHub { port in
            for token in ["", "a secret of the grouq", "a secret of the group and more"] {
                let stranger = try await Stranger(port: port)
                stranger.write(
                    try Self.frame(.hello(host: 1, hostCount: 2, name: "x", token: token)))
                try await stranger.closed(within: .seconds(3))
            }
        }
    }

    @Test func nothingButAHelloIsTaken() async throws {
        try await Self.withHub { port in
            for message: HostMessage in [
                .put(key: "k", payload: []), .end(scope: "scope", host: 1, reason: "r"),
                .withdraw(key: "scope/step", reason: "r"), .welcome(names: []),
            ] {
                let stranger = try await Stranger(port: port)
                stranger.write(try Self.frame(message))
                try await stranger.closed(within: .seconds(3))
            }
        }
    }

    /// A peer that sends pings, and no hello, is not there for ever.
    @Test func whoNeverSaysHelloIsClosed() async throws {
        try await Self.withHub { port in
            let stranger = try await Stranger(port: port)
            let ping = try Self.frame(.ping)
            let pings = Task {
                while !Task.isCancelled {
                    stranger.write(ping)
                    do { try await Task.sleep(for: .milliseconds(500)) } catch { return }
                }
            }
            defer { pings.cancel() }
            try await stranger.closed(within: .seconds(9))
        }
    }

    /// The oldest gives way; a host of the group comes in between them all.
    @Test func manyStrangersKeepNobodyOut() async throws {
        try await Self.withHub { port in
            var strangers: [Stranger] = []
            for _ in 0..<(2 * HostLimits.strangerCountMax) {
                strangers.append(try await Stranger(port: port))
            }
            for stranger in strangers.prefix(HostLimits.strangerCountMax) {
                try await stranger.closed(within: .seconds(3))
            }
            #expect(strangers[strangers.count - 1].channel.isActive)
        }
    }
}
