import CheckpointModel
import CheckpointTesting
import Foundation
import Testing

@testable import CheckpointWorker

/// The link over real ZeroMQ when workers fail, one way or another.
struct WorkerLinkFailureTests {
    private let link: ScriptedLink

    init() throws { link = try ScriptedLink() }

    private static let messages = ["hello", "catalog", "bucket", "release", "commit"]

    @Test func scriptedWorkersCommit() {
        let outcome = link.run { _, _ in .right }
        #expect(outcome.failure == nil)
        #expect(outcome.aborts.isEmpty)
        #expect(outcome.progress.last?.workers.allSatisfy(\.isCommitted) == true)
        let stages = outcome.progress.map(\.stage)
        #expect(stages == stages.sorted() && stages.last == .commit)
    }

    /// However a link ends, nothing stays of its sockets.
    @Test(arguments: [ScriptedLink.Reply.right, .vanish, .frames([[1]])])
    func socketsAreRemoved(_ reply: ScriptedLink.Reply) throws {
        _ = link.run { _, _ in reply }
        let left = try FileManager.default.contentsOfDirectory(atPath: link.directory.path)
        #expect(left.isEmpty, "\(left)")
    }

    /// Long before the deadline.
    @Test func workersThatNeverComeAreNamed() {
        var link = link
        link.handshakeGrace = .milliseconds(300)
        link.places = []
        let outcome = link.run { _, _ in .right }
        #expect(outcome.failure?.code == .workerLost)
        for name in ["CPU-0 (not connected)", "CPU-1 (not connected)", "its engine's log"] {
            #expect(outcome.failure?.message.contains(name) == true, "\(outcome)")
        }
        #expect(outcome.seconds < 8, "\(outcome.seconds)")
    }

    @Test(arguments: messages)
    func aWorkerThatVanishesIsNoticedAtOnce(_ type: String) {
        let outcome = link.run { worker, message in
            worker == 1 && message.type == type ? .vanish : .right
        }
        #expect(outcome.failure?.code == .workerLost)
        let name = type == "hello" ? "CPU-1 (silent)" : "CPU-1 (pid 41)"
        #expect(outcome.failure?.message.contains(name) == true, "\(outcome)")
        #expect(outcome.seconds < 8, "\(outcome.seconds)")
        // The other one is told the reason, unless it has committed or the failure came before it.
        if let reason = outcome.aborts[0] { #expect(reason == outcome.failure?.message) }
        if Self.messages.firstIndex(of: type).map({ (1...3).contains($0) }) == true {
            #expect(outcome.aborts[0] != nil)
        }
    }

    @Test(arguments: messages)
    func aReportedErrorEndsTheOthersToo(_ type: String) throws {
        let stage = try #require(WorkerFailure.Stage(rawValue: type))
        let outcome = link.run { worker, message in
            guard worker == 0, message.type == type else { return .right }
            return .message(
                .error(WorkerFailure(stage: stage, message: "boom", traceback: "line 1\nline 2")))
        }
        #expect(outcome.failure?.code == .workerFailed)
        #expect(outcome.failure?.message.contains("CPU-0") == true)
        #expect(outcome.failure?.message.hasSuffix("boom") == true)
        #expect(outcome.failure?.cause == "line 1\nline 2")
        #expect(outcome.aborts[0]?.contains("boom") == true)
        #expect(outcome.seconds < 8, "\(outcome.seconds)")
    }

    /// Frames that are none of the protocol, each as the answer to the first bucket.
    private static let nonsense: [[[UInt8]]] = [
        [Array("nonsense".utf8)], [[]], [[0x80, 0x05, 0x4e, 0x2e]],
        [Array(#"{"type":"ready"}"#.utf8)], [Array(#"{"type":"ready"}"#.utf8), [1]],
        [Array(#"{"type":"loaded","index":1,"bytes":8,"micros":1}"#.utf8)],
        [Array(#"{"type":"loaded","index":0,"bytes":9,"micros":1}"#.utf8)],
        [[UInt8]](repeating: [1], count: 9),
    ]

    @Test(arguments: nonsense)
    func nonsenseIsAViolation(_ frames: [[UInt8]]) {
        let outcome = link.run { worker, message in
            worker == 1 && message.type == "bucket" ? .frames(frames) : .right
        }
        #expect(outcome.failure?.code == .protocolViolation)
        #expect(outcome.failure?.message.contains("CPU-1 (pid 41)") == true)
        #expect(outcome.aborts.count == 2)
        #expect(outcome.seconds < 8, "\(outcome.seconds)")
    }

    @Test func aFrameBeyondTheLimitEndsTheConnection() {
        let outcome = link.run { worker, message in
            worker == 1 && message.type == "catalog"
                ? .frames([[UInt8](repeating: UInt8(ascii: " "), count: 2 << 20)]) : .right
        }
        #expect(outcome.failure?.code == .workerLost)
        #expect(outcome.failure?.message.contains("CPU-1") == true)
        #expect(outcome.seconds < 8, "\(outcome.seconds)")
    }

    @Test func aWorkerThatIgnoresTheAbortHoldsNobodyLongerThanTheGrace() {
        let outcome = link.run { worker, message in
            guard message.type == "bucket" else { return .right }
            if worker == 1 { return .silence }
            return .message(
                .error(WorkerFailure(stage: .bucket, message: "boom", traceback: "")))
        }
        #expect(outcome.failure?.code == .workerFailed)
        #expect(outcome.seconds > 0.3 && outcome.seconds < 8, "\(outcome.seconds)")
    }

    @Test func theDeadlineNamesTheWorkerThatHangsAndItsPlace() {
        var link = link
        link.deadline = .milliseconds(700)
        let outcome = link.run { worker, message in
            worker == 1 && message.type == "bucket" ? .silence : .right
        }
        #expect(outcome.failure?.code == .deadlineExceeded)
        #expect(outcome.failure?.message.contains("CPU-1 (pid 41)") == true)
        #expect(outcome.failure?.message.contains("bucket 0 of 1") == true)
        #expect(outcome.failure?.message.contains("CPU-0") == false)
        #expect(outcome.aborts[0] == outcome.failure?.message)
        #expect(outcome.seconds < 8, "\(outcome.seconds)")
    }

    @Test func aSecondWorkerOnOneAddressEndsTheUpdate() {
        var link = link
        link.places = [0, 0, 1]
        // Nobody finishes before all three have come.
        let outcome = link.run { _, message in
            if message.type == "hello" { Thread.sleep(forTimeInterval: 0.2) }
            return .right
        }
        #expect(outcome.failure?.code == .protocolViolation)
        #expect(outcome.failure?.message.contains("a second worker connected as CPU-0") == true)
        #expect(outcome.seconds < 8, "\(outcome.seconds)")
    }

    @Test func aSignalFromBeforeTheStartCounts() {
        var link = link
        link.places = []
        link.signal.fail(WorkerError(.cancelled, "too late to start"))
        let outcome = link.run { _, _ in .right }
        #expect(outcome.failure?.code == .cancelled)
        #expect(outcome.failure?.message == "too late to start")
    }

    /// An engine that has answered while others still commit neither fails the update nor keeps the
    /// link from sleeping.
    @Test func anEngineMayAnswerLongBeforeTheOthers() {
        var link = link
        link.engines = ["http://one", "http://two"]
        let signal = link.signal
        let outcome = link.run { worker, message in
            if worker == 1, message.type == "commit" {
                signal.engineAnswered("http://one")
                Thread.sleep(forTimeInterval: 0.6)
            }
            return .right
        }
        #expect(outcome.failure == nil)
        #expect(outcome.progress.count < 150, "the link woke up \(outcome.progress.count) times")
    }

    @Test func anEngineThatAnswersWithoutACommitIsNamed() {
        let signal = link.signal
        let outcome = link.run { worker, message in
            if worker == 0, message.type == "commit" { return .silence }
            if worker == 1, message.type == "commit" { signal.engineAnswered("http://one") }
            return .right
        }
        #expect(outcome.failure?.code == .workerLost)
        #expect(outcome.failure?.message.contains("CPU-0 (pid 40)") == true)
        #expect(outcome.failure?.message.contains("CPU-1") == false)
        #expect(outcome.seconds < 8, "\(outcome.seconds)")
    }

    @Test func aLargeCatalogReachesEveryWorkerUnchanged() throws {
        var link = link
        let seed = UInt64(3)
        var generator = SeededGenerator(seed: seed)
        let catalog = RandomCatalog.make(tensorCount: 20_000, shardCount: 5, using: &generator)
        link.catalog = CatalogMessage(
            segments: catalog.shards.enumerated().map { index, shard in
                SegmentLocation(
                    path: "/dev/shm/\(shard.name)", inode: UInt64(index + 1),
                    fileByteCount: shard.byteCount + 64, dataOffset: 64)
            }, tensors: catalog.tensors)
        let outcome = link.run { _, _ in .right }
        #expect(outcome.failure == nil)
        #expect(outcome.catalogs == [link.catalog, link.catalog], "seed \(seed)")
    }
}
