import CheckpointModel
import CheckpointTesting
import Foundation
import Glibc
import Synchronization
import Testing

@testable import CheckpointWorker

/// The link over real ZeroMQ with reference workers on threads of this process.
struct WorkerLinkTests {
    private let directory: TemporaryDirectory
    private let context: ZeroMQContext
    private let bytes: [UInt8]

    init() throws {
        directory = try TemporaryDirectory(in: "/dev/shm")
        context = try ZeroMQContext(libraryNames: ZeroMQNames.all)
        var generator = SeededGenerator(seed: 7)
        bytes = (0..<24_576).map { _ in UInt8.random(in: 0...255, using: &generator) }
        try directory.write(bytes, to: "segment")
    }

    /// Three matrices of 64 × 64 BF16, one of them cut in its second dimension.
    private func catalog() throws -> CatalogMessage {
        var status = stat()
        let path = "\(directory.path)/segment"
        try #require(unsafe stat(path, &status) == 0)
        let names = ["a.weight", "b.o_proj.weight", "c.weight"]
        return CatalogMessage(
            segments: [
                SegmentLocation(
                    path: path, inode: UInt64(status.st_ino), fileByteCount: bytes.count,
                    dataOffset: 0)
            ],
            tensors: try names.enumerated().map { index, name in
                TensorEntry(
                    name: name, dtype: .bf16, shape: try #require(Shape([64, 64])), shard: 0,
                    range: try #require(ByteRange(offset: index * 8192, byteCount: 8192)))
            })
    }

    private func configuration(
        _ catalog: CatalogMessage, workers: Int, deadline: Duration = .seconds(20),
        grace: Duration = .seconds(1), stragglerGrace: Duration = .seconds(15)
    ) -> WorkerLink.Configuration {
        WorkerLink.Configuration(
            update: "test-\(UInt32.random(in: 0 ... .max))", checkpoint: "c",
            endpoints: (0..<workers).map { rank in
                WorkerEndpoint(
                    id: .cpu(rank: rank), engine: "http://engine",
                    socketPath: "\(directory.path)/worker-\(rank)")
            }, memory: .host(catalog.segments), tensors: catalog.tensors,
            schedule: DeliverySchedule(
                buckets: (0..<3).map { .init(first: $0, count: 1, byteCount: 8192) }),
            deadline: .now + deadline, abortGrace: grace, answerGrace: .milliseconds(200),
            stragglerGrace: stragglerGrace)
    }

    /// Runs the link on this thread and `workers` on others; returns the link's failure and the
    /// workers' own.
    private func run(
        _ configuration: WorkerLink.Configuration, workers: Int,
        signal: LinkSignal, onBound: @escaping @Sendable () -> Void = {}
    ) -> (WorkerError?, [WorkerError?]) {
        let group = DispatchGroup()
        let failures = Mutex<[WorkerError?]>(Array(repeating: nil, count: workers))
        let directory = directory.path
        let context = context
        do throws(WorkerError) {
            try WorkerLink.run(
                configuration, context: context, signal: signal,
                observer: ClosureObserver(onBound: {
                    for rank in 0..<workers {
                        let thread = Thread {
                            let memory = ReferenceMemory(
                                path: "\(directory)/memory-\(rank)", rank: rank,
                                worldSize: workers)
                            let worker = ReferenceWorker(
                                id: .cpu(rank: rank), memory: memory, context: context)
                            do throws(WorkerError) {
                                try worker.run(
                                    address: configuration.endpoints[rank].address,
                                    handshakeTimeout: .seconds(10))
                            } catch {
                                failures.withLock { $0[rank] = error }
                            }
                            group.leave()
                        }
                        group.enter()
                        thread.start()
                    }
                    onBound()
                }))
        } catch {
            group.wait()
            return (error, failures.withLock { $0 })
        }
        group.wait()
        return (nil, failures.withLock { $0 })
    }

    @Test(arguments: 1...2)
    func everyByteArrives(_ workers: Int) throws {
        let catalog = try catalog()
        let (failure, others) = run(
            configuration(catalog, workers: workers), workers: workers, signal: try LinkSignal())
        #expect(failure == nil && others.allSatisfy { $0 == nil })
        for rank in 0..<workers {
            let memory = try TemporaryDirectory.read("\(directory.path)/memory-\(rank)")
            var expected: [UInt8] = []
            for tensor in catalog.tensors {
                let slice = TensorSlice(tensor, rank: rank, worldSize: workers)
                for row in 0..<slice.rowCount {
                    let start = tensor.range.offset + slice.offset + row * slice.rowStride
                    expected += bytes[start..<(start + slice.rowByteCount)]
                }
            }
            #expect(memory == expected)
        }
    }

    @Test func oneContextServesManyUpdates() throws {
        let catalog = try catalog()
        for _ in 0..<20 {
            let (failure, _) = run(
                configuration(catalog, workers: 2), workers: 2, signal: try LinkSignal())
            #expect(failure == nil)
        }
    }

    @Test func aSegmentThatIsReplacedIsRefused() throws {
        let catalog = try catalog()
        try FileManager.default.removeItem(atPath: "\(directory.path)/segment")
        try directory.write([UInt8](repeating: 0, count: 100), to: "segment")
        let (failure, others) = run(
            configuration(catalog, workers: 1), workers: 1, signal: try LinkSignal())
        #expect(failure?.code == .workerFailed)
        #expect(failure?.message.contains("segment") == true)
        #expect(others[0]?.code == .cancelled)
    }

    @Test func cancellingReachesTheWorkers() throws {
        let signal = try LinkSignal()
        let (failure, others) = run(
            configuration(try catalog(), workers: 2), workers: 1, signal: signal,
            onBound: { signal.fail(WorkerError(.cancelled, "enough")) })
        #expect(failure?.code == .cancelled)
        #expect(
            others.allSatisfy { $0 == nil || $0?.code == .cancelled || $0?.code == .workerLost })
    }

    @Test func nobodyComesBeforeTheDeadline() throws {
        let start = ContinuousClock.now
        let (failure, _) = run(
            configuration(try catalog(), workers: 1, deadline: .milliseconds(300)), workers: 0,
            signal: try LinkSignal())
        #expect(failure?.code == .deadlineExceeded)
        #expect(failure?.message.contains("CPU-0 (not connected)") == true)
        #expect(start.duration(to: .now) < .seconds(5))
    }

    @Test func theEngineAnswersWithoutItsWorkers() throws {
        let signal = try LinkSignal()
        let (failure, _) = run(
            configuration(try catalog(), workers: 1), workers: 0, signal: signal,
            onBound: { signal.engineAnswered("http://engine") })
        #expect(failure?.code == .workerLost)
    }

    @Test func oneWorkerOfTwoNeverComes() throws {
        let (failure, others) = run(
            configuration(try catalog(), workers: 2, stragglerGrace: .milliseconds(300)),
            workers: 1, signal: try LinkSignal())
        #expect(failure?.code == .workerLost)
        #expect(failure?.message.contains("CPU-1 (not connected)") == true)
        #expect(others[0]?.code == .cancelled)
    }

    @Test func aMissingLibraryIsNamed() {
        let error = #expect(throws: WorkerError.self) {
            try ZeroMQContext(libraryNames: ["libnothing.so.1", "libc.so.6"])
        }
        #expect(error?.code == .libraryMissing)
        #expect(error?.message.contains("zmq_ctx_new") == true)
    }
}

struct TensorSliceTests {
    /// The slices of all ranks cover each byte exactly once, or all hold the whole tensor.
    @Test(arguments: 0..<200 as Range<UInt64>)
    func slicesCoverTheTensor(_ seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        let catalog = RandomCatalog.make(tensorCount: 1, shardCount: 1, using: &generator)
        let random = try #require(catalog.tensors.first)
        let name = Bool.random(using: &generator) ? "x.down_proj.weight" : "x.up_proj.weight"
        let tensor = TensorEntry(
            name: name, dtype: random.dtype, shape: random.shape, shard: 0, range: random.range)
        let worldSize = Int.random(in: 1...4, using: &generator)
        var counts = [Int](repeating: 0, count: tensor.range.byteCount)
        for rank in 0..<worldSize {
            let slice = TensorSlice(tensor, rank: rank, worldSize: worldSize)
            for row in 0..<slice.rowCount {
                let start = slice.offset + row * slice.rowStride
                for place in start..<(start + slice.rowByteCount) { counts[place] += 1 }
            }
        }
        #expect(
            counts.allSatisfy { $0 == 1 } || counts.allSatisfy { $0 == worldSize }, "seed \(seed)")
    }
}

struct EngineAddressTests {
    @Test func readsURLs() throws {
        let plain = try EngineAddress(HTTPURL("http://127.0.0.1:8000"))
        #expect(plain.description == "http://127.0.0.1:8000")
        #expect(try EngineAddress(HTTPURL("https://h/")).url("/health") == "https://h/health")
        let unix = try EngineAddress(HTTPURL("http://localhost"), unixSocketPath: "/tmp/a b.sock")
        #expect(unix.url("/health") == "http+unix://%2Ftmp%2Fa%20b.sock/health")
        #expect(unix.description == "unix:/tmp/a b.sock")
    }

    /// All calls of an engine go to where its update goes.
    @Test(arguments: [
        ("http://h/collective_rpc", EngineKind.vllm, "http://h"),
        ("http://h/engine-0/collective_rpc", .vllm, "http://h/engine-0"),
        ("http://h/engine-0/", .vllm, "http://h/engine-0"),
        ("http://h/a/b", .vllm, "http://h/a/b"),
        ("http://h/x/update_weights_from_ipc", .sglang, "http://h/x"),
        ("http://h/collective_rpc", .sglang, "http://h/collective_rpc"),
    ])
    func pathsOfGateways(_ url: String, _ kind: EngineKind, _ base: String) throws {
        let engine = try EngineAddress(HTTPURL(url), kind: kind)
        #expect(engine.description == base)
        #expect(engine.url("/health") == base + "/health")
    }

    @Test(arguments: [
        "", "relative", "/a\u{0}b", "/" + String(repeating: "x", count: 107),
    ])
    func socketsThatAreRefused(_ path: String) throws {
        let url = try HTTPURL("http://localhost")
        let error = #expect(throws: WorkerError.self) {
            try EngineAddress(url, unixSocketPath: path)
        }
        #expect(error?.code == .invalidArgument)
    }
}
