import ArgumentParser
import CheckpointDevice
import CheckpointEngine
import CheckpointModel
import Hummingbird
import Logging

/// `checkpoint-engine demo`: the whole job on made-up weights, with reference workers.
struct DemoCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "demo",
        abstract: "Make a checkpoint, update two reference workers twice, compare every byte.",
        discussion: """
            Needs nothing but this program and ZeroMQ. It makes two checkpoints of 0.2 GB with \
            different weights, one on disk and one in shared memory, starts an engine with two \
            tensor-parallel workers as processes, updates it from the first and then from the \
            second, and compares every byte that the workers hold with the files. It takes a few \
            seconds and removes all that it made.
            """)

    private static let workerCount = 2
    private static let checkpoints: [(name: String, seed: UInt64)] = [
        ("demo-step-1", 1), ("demo-step-2", 2),
    ]
    /// Small enough for several buckets.
    private static let bucketByteCountMax = 32 << 20

    @OptionGroup var zeroMQOptions: ZeroMQOptions

    func run() async throws {
        let signals = try StopSignals.install()
        let disk = try PrivateDirectory(parent: "/tmp", prefix: PoolNames.demoPrefix)
        let memory = try PrivateDirectory(parent: "/dev/shm", prefix: PoolNames.demoPrefix)
        defer {
            disk.remove()
            memory.remove()
        }
        let zeroMQLibraryNames = try zeroMQOptions.libraryNames(.process)
        let engine = try CheckpointEngine(
            configuration: EngineConfiguration(
                bucketByteCountMax: Self.bucketByteCountMax,
                zeroMQLibraryNames: zeroMQLibraryNames),
            logger: Logger(label: "demo") { _ in SwiftLogNoOpLogHandler() })
        let (diskPath, memoryPath) = (disk.path, memory.path)
        let outcome: StopSignals.Outcome<Void>
        do {
            outcome = try await StopSignals.guarding(
                signals, cancels: true, stop: { await engine.shutDown() },
                work: {
                    try await Self.run(
                        engine, zeroMQLibraryNames, disk: diskPath, memory: memoryPath)
                })
        } catch {
            await engine.shutDown()
            throw error
        }
        await engine.shutDown()
        if case .signalled(let number) = outcome { throw ExitCode(128 + number) }
    }

    private static func run(
        _ engine: CheckpointEngine, _ zeroMQLibraryNames: [String], disk: String, memory: String
    ) async throws {
        let socket = "\(memory)/engine.sock"
        let reference = ReferenceEngine(
            workerCount: workerCount, memoryPrefix: "\(memory)/parameters",
            zeroMQLibraryNames: zeroMQLibraryNames)
        var logger = Logger(label: "reference-engine")
        logger.logLevel = .critical
        let instance = EngineInstance(
            updateURL: try HTTPURL("http://localhost"), unixSocketPath: socket)
        try await withThrowingTaskGroup(of: Void.self) { [logger] group in
            group.addTask {
                try await reference.run(address: .unixDomainSocket(path: socket), logger: logger)
            }
            group.addTask {
                try await engine.waitUntilReady([instance], timeoutSeconds: 30) { _, _ in }
                try say("engine ready: \(workerCount) workers, one process each")
                for (checkpoint, directory) in zip(checkpoints, [disk, memory]) {
                    try await update(
                        engine, instance, checkpoint, files: directory, memory: memory)
                }
                try say("every byte is right on every worker, twice")
            }
            // The job ends first, or the engine fails first: either way the other one is done.
            try await group.next()
            group.cancelAll()
        }
    }

    private static func update(
        _ engine: CheckpointEngine, _ instance: EngineInstance,
        _ checkpoint: (name: String, seed: UInt64), files directory: String, memory: String
    ) async throws {
        let files = try DemoCheckpoint.write(to: directory, seed: checkpoint.seed)
        guard let name = CheckpointName(checkpoint.name) else { return }
        let summary = try await engine.register(name, paths: files)
        try say(
            "registered \(name): \(summary.tensors) tensors in \(summary.files) files, "
                + "\(summary.bytes) bytes, \(summary.inPlaceBytes > 0 ? "used in place" : "read from disk") in "
                + "\(seconds(summary.registerSeconds)) s")
        let started = try await engine.startUpdate(
            name, UpdateRequest(instances: [instance], timeoutSeconds: 60))
        let status = try await engine.finishedUpdate(started.id)
        if let failure = status.error {
            throw DemoCheckpoint.Failure(description: failure.message)
        }
        let rate = Double(status.bytes * status.workers.count) / 1e9 / max(status.seconds, 1e-9)
        try say("updated in \(seconds(status.seconds)) s, \(seconds(rate)) GB/s over all workers:")
        for line in StageTable(status: status).lines { try say(line) }
        let comparison = try DemoComparison(
            files: files, memoryPaths: (0..<workerCount).map { "\(memory)/parameters-\($0)" },
            bucketByteCountMax: bucketByteCountMax)
        guard comparison.different.isEmpty else {
            throw DemoCheckpoint.Failure(
                description: "\(comparison.different.count) tensors differ: "
                    + comparison.different.prefix(5).joined(separator: ", "))
        }
        try say("compared \(comparison.byteCount) bytes: equal")
        try await engine.unregister(name)
    }

    private static func say(_ line: String) throws {
        try Terminal.standardOutput.print(line + "\n")
    }

    private static func seconds(_ value: Double) -> Double { (value * 1000).rounded() / 1000 }
}
