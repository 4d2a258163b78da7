import CheckpointNative
import CheckpointTesting
import Testing

@testable import CheckpointWorker

/// The owners of ZeroMQ's handles, on one thread.
struct ZeroMQSocketTests {
    private let context: ZeroMQContext
    private let directory: TemporaryDirectory

    init() throws {
        context = try ZeroMQContext(libraryNames: ZeroMQNames.all)
        directory = try TemporaryDirectory()
    }

    private func frames(_ bytes: [[UInt8]]) throws -> [ZeroMQFrame] {
        try bytes.map { try ZeroMQFrame($0, table: context.table) }
    }

    private func receive(_ socket: ZeroMQSocket) throws -> [[UInt8]] {
        var poller = ZeroMQPoller([socket], descriptor: nil, table: context.table)
        let deadline = ContinuousClock.now + .seconds(20)
        while ContinuousClock.now < deadline {
            if let frames = try socket.receive(from: "the test") { return frames }
            try poller.wait(milliseconds: 100)
        }
        return []
    }

    /// The library's own limit is 1,023, and each worker of an update has three.
    @Test func aContextHasSocketsForManyWorkers() throws {
        Descriptors.raiseLimit()
        let sockets = try (0..<1100).map { _ in
            try ZeroMQSocket(.pair, context: context, lingerMilliseconds: 0)
        }
        #expect(sockets.count == 1100)
    }

    @Test func theLibraryIsTheOneThatWasAskedFor() throws {
        #expect(context.version.hasPrefix("4."))
        #expect(ZeroMQNames.all.contains(context.libraryPath))
    }

    /// As when a worker has gone and its disconnect has not been read yet.
    @Test func withoutAPeerNothingIsSent() throws {
        let socket = try ZeroMQSocket(.dealer, context: context, lingerMilliseconds: 0)
        try socket.bind("ipc://\(directory.path)/s")
        #expect(try !socket.send(frames([[], [1]]), to: "nobody"))
        #expect(try socket.receive(from: "nobody") == nil)
    }

    @Test func framesArriveAsTheyWereSent() throws {
        let dealer = try ZeroMQSocket(.dealer, context: context, lingerMilliseconds: 0)
        let reply = try ZeroMQSocket(.reply, context: context, lingerMilliseconds: 0)
        try dealer.bind("ipc://\(directory.path)/s")
        try reply.connect("ipc://\(directory.path)/s")
        let monitor = try dealer.monitor("inproc://test", events: 0xffff)
        var poller = ZeroMQPoller([monitor], descriptor: nil, table: context.table)
        let seed = UInt64(9)
        var generator = SeededGenerator(seed: seed)
        let sent: [[UInt8]] = [0, 1, 29, 30, 31, 100_000].map { count in
            (0..<count).map { _ in UInt8.random(in: 0...255, using: &generator) }
        }
        // The connection is there when the first message can be sent.
        while try !dealer.send(frames([[]] + [sent[0]]), to: "reply") {
            try poller.wait(milliseconds: 10)
        }
        #expect(try receive(reply) == [sent[0]])
        for bytes in sent.dropFirst() {
            #expect(try reply.send(frames([bytes, []]), to: "dealer"))
            #expect(try receive(dealer) == [[], bytes, []], "seed \(seed)")
            #expect(try dealer.send(frames([[], bytes]), to: "reply"))
            #expect(try receive(reply) == [bytes], "seed \(seed)")
        }
    }

    @Test func aMessageOfManyFramesIsCut() throws {
        let dealer = try ZeroMQSocket(.dealer, context: context, lingerMilliseconds: 0)
        let other = try ZeroMQSocket(.dealer, context: context, lingerMilliseconds: 0)
        try dealer.bind("ipc://\(directory.path)/s")
        try other.connect("ipc://\(directory.path)/s")
        #expect(try other.send(frames([[UInt8]](repeating: [7], count: 50)), to: "dealer"))
        #expect(try other.send(frames([[8]]), to: "dealer"))
        #expect(try receive(dealer).count == ZeroMQSocket.frameCountMax)
        #expect(try receive(dealer) == [[8]])
    }

    @Test func anAddressThatIsTakenIsRefused() throws {
        let first = try ZeroMQSocket(.dealer, context: context, lingerMilliseconds: 0)
        try first.bind("inproc://taken")
        let second = try ZeroMQSocket(.dealer, context: context, lingerMilliseconds: 0)
        let error = #expect(throws: WorkerError.self) { try second.bind("inproc://taken") }
        #expect(error?.code == .callFailed)
        #expect(error?.message.contains("cannot bind inproc://taken: zmq_bind failed") == true)
    }

    @Test func framesCanBeSentMoreThanOnce() throws {
        let dealer = try ZeroMQSocket(.dealer, context: context, lingerMilliseconds: 0)
        let other = try ZeroMQSocket(.dealer, context: context, lingerMilliseconds: 0)
        try dealer.bind("ipc://\(directory.path)/s")
        try other.connect("ipc://\(directory.path)/s")
        let shared = try frames([[UInt8](repeating: 5, count: 4096)])
        for _ in 0..<3 { #expect(try other.send(shared, to: "dealer")) }
        for _ in 0..<3 { #expect(try receive(dealer) == [[UInt8](repeating: 5, count: 4096)]) }
    }
}
