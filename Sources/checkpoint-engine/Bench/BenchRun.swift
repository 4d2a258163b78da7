import CheckpointEngine
import CheckpointModel
import CheckpointReference
import CheckpointTrace
import Glibc
import Hummingbird
import Logging

/// One run of `bench`, from the files to the figures.
struct BenchRun: Sendable {
    private static let readySeconds = 120.0
    private static let timeoutSeconds = 3600.0
    private static let fillByte = 90
    private static let pollInterval = Duration.milliseconds(100)

    let order: BenchOrder
    let engine: CheckpointEngine
    let configuration: EngineConfiguration
    /// Directories of the checkpoint, and of parameters and sockets.
    let files: String
    let memory: String
    let display = ProgressDisplay()

    func run() async throws {
        defer { display.end() }
        let tensors = order.model.tensors(layerCount: order.layers)
        try checkRoom(tensors.reduce(0) { $0 + $1.byteCount })
        let references = makeEngines()
        let written = try await write(tensors)
        var logger = Logger(label: "reference-engine")
        logger.logLevel = .critical
        let result = try await withThrowingTaskGroup(of: BenchResult?.self) { [logger] group in
            for (number, reference) in references.enumerated() {
                let address = BindAddress.unixDomainSocket(path: socket(number))
                group.addTask {
                    try await reference.run(address: address, logger: logger)
                    return nil
                }
            }
            group.addTask { try await measure(references, written) }
            defer { group.cancelAll() }
            // Only the measurement ends by itself, unless an engine fails.
            while let ended = try await group.next() { if let ended { return ended } }
            throw CommandError("the engines of the benchmark have ended early")
        }
        display.end()
        if let file = order.jsonFile { try file.write(Array(try JSONOutput.text(result).utf8)) }
        try Terminal.standardOutput.print(result.text)
    }

    /// Ends what runs, after a signal.
    func stop() async {
        display.note("stopping: everything that was made is removed")
        await engine.shutDown()
    }

    private func socket(_ number: Int) -> String { "\(memory)/engine-\(number).sock" }

    private func instances() throws -> [EngineInstance] {
        try (0..<order.dataParallel).map { number in
            let first = number * order.tensorParallel
            return EngineInstance(
                updateURL: try HTTPURL("http://engine-\(number)"), unixSocketPath: socket(number),
                workerCount: order.tensorParallel,
                ranks: Array(first..<(first + order.tensorParallel)))
        }
    }
}

// MARK: - What is needed

extension BenchRun {
    private func checkRoom(_ byteCount: Int) throws {
        if let count = engine.gpuCount, count < order.workerCount {
            throw CommandError(
                "\(order.workerCount) workers need as many GPUs, and this process sees \(count): "
                    + "lower --tensor-parallel or --data-parallel, or measure on the CPU with "
                    + "--device host", code: .usage)
        }
        // On the CPU every engine holds the tensors a second time, in shared memory.
        let copies = engine.gpuCount == nil ? order.dataParallel : 0
        for (path, needed) in [
            (order.directory, byteCount), (configuration.sharedMemoryDirectory, copies * byteCount),
        ] {
            guard let space = FileSystemSpace.of(path), space.free < needed else { continue }
            throw CommandError(
                "\(path) has \(TextFormat.bytes(space.free)) free, and \(TextFormat.bytes(needed)) "
                    + "are needed: measure fewer layers with --layers, or set --directory to "
                    + "another place")
        }
    }

    private func makeEngines() -> [ReferenceEngine] {
        (0..<order.dataParallel).map { number in
            let first = number * order.tensorParallel
            let device: ReferenceDevice =
                engine.gpuCount == nil
                ? .host
                : .cuda(
                    gpus: Array(first..<(first + order.tensorParallel)),
                    libraryNames: configuration.gpu.cudaLibraryNames)
            return ReferenceEngine(
                workerCount: order.tensorParallel, memoryPrefix: "\(memory)/parameters-\(number)",
                device: device, zeroMQLibraryNames: configuration.zeroMQLibraryNames)
        }
    }

    private func write(_ tensors: [ModelShapes.Tensor]) async throws -> BenchFiles {
        let layers = TextFormat.count(order.layers, "layer")
        display.begin("write", "\(order.model.rawValue), \(layers), to \(files)")
        let display = display
        let start = ContinuousClock.now
        let written = try await SyntheticCheckpoint.make(
            tensors, in: files, seed: order.seed, threadCount: Self.coreCount
        ) { display.report($0, $1) }
        let seconds = start.duration(to: .now) / .seconds(1)
        display.note(
            "\(TextFormat.bytes(written.byteCount)) in "
                + "\(TextFormat.count(written.paths.count, "file")), "
                + "\(TextFormat.fixed(seconds, 2)) s")
        return BenchFiles(directory: files, count: written.paths.count)
    }

    private static var coreCount: Int { max(1, Int(sysconf(CInt(_SC_NPROCESSORS_ONLN)))) }
}

/// The files of a benchmark's checkpoint.
struct BenchFiles: Sendable {
    let directory: String
    let count: Int
}

// MARK: - Measuring

extension BenchRun {
    private func measure(_ references: [ReferenceEngine], _ written: BenchFiles) async throws
        -> BenchResult
    {
        try await engine.waitUntilReady(
            try instances(), timeoutSeconds: Self.readySeconds, progress: { _, _ in })
        guard let name = CheckpointName("bench") else {
            preconditionFailure("the name is a valid one")
        }
        display.begin("register", written.directory)
        let display = display
        let checkpoint = try await engine.register(name, paths: [written.directory]) {
            display.report($0, $1)
        }
        display.note("\(TextFormat.fixed(checkpoint.registerSeconds, 3)) s")
        let workers = references.flatMap(\.workers)
        var statuses: [UpdateStatus] = []
        var comparedBytes = 0
        for number in 1...order.updates {
            if order.verifies { _ = try await ask(workers, "fill \(Self.fillByte)") }
            let status = try await update(name, number)
            statuses.append(status)
            if order.verifies { comparedBytes = try await verify(workers, written) }
        }
        if let file = order.traceFile, let last = statuses.last {
            try file.write(try await engine.timeline(last.id))
        }
        try await engine.unregister(name, releasesMemory: true)
        return BenchResult(
            order, checkpoint, statuses, device: engine.gpuCount == nil ? "host" : "cuda",
            comparedBytes: comparedBytes)
    }

    private func update(_ name: CheckpointName, _ number: Int) async throws -> UpdateStatus {
        display.begin("update", "\(number) of \(order.updates)")
        let started = try await engine.startUpdate(
            name,
            UpdateRequest(instances: try instances(), timeoutSeconds: Self.timeoutSeconds))
        let status = try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await showProgress(started.id) }
            defer { group.cancelAll() }
            return try await engine.finishedUpdate(started.id)
        }
        if let failure = status.error {
            throw CommandError(
                "update \(number) failed in the stage \(status.stage.rawValue): "
                    + failure.message, cause: failure.cause)
        }
        display.note(
            "\(TextFormat.fixed(status.seconds, 3)) s, "
                + "\(TextFormat.rate(status.bytes, status.seconds)) GB/s")
        return status
    }

    /// Reports until it is cancelled.
    private func showProgress(_ id: String) async throws {
        while !Task.isCancelled {
            try? await Task.sleep(for: Self.pollInterval)
            let status = try await engine.update(id)
            if status.state == .running, status.stage == .reload {
                display.report(status.loadedBytes, status.bytes)
            }
        }
    }

    /// Compares what all workers hold with the files; returns the bytes.
    private func verify(_ workers: [ReferenceWorkerProcess], _ written: BenchFiles) async throws
        -> Int
    {
        display.begin("verify", TextFormat.count(workers.count, "worker"))
        let start = ContinuousClock.now
        let threads = max(1, Self.coreCount / workers.count)
        let counts = try await ask(workers, "verify \(threads) \(written.directory)")
        let byteCount = counts.reduce(0) { $0 + (Int($1) ?? 0) }
        let seconds = start.duration(to: .now) / .seconds(1)
        display.note(
            "\(TextFormat.bytes(byteCount)) are right, \(TextFormat.fixed(seconds, 2)) s")
        return byteCount
    }

    /// Asks all workers at once.
    private func ask(_ workers: [ReferenceWorkerProcess], _ line: String) async throws -> [String] {
        try await withThrowingTaskGroup(of: String.self) { group in
            for worker in workers { group.addTask { try await worker.ask(line) } }
            return try await group.reduce(into: []) { $0.append($1) }
        }
    }
}
