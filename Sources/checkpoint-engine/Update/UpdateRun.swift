import CheckpointEngine
import CheckpointFiles
import CheckpointHosts
import CheckpointModel
import CheckpointPull
import CheckpointTrace
import Synchronization

/// One run of `update`, from the wait for the engines to the summary.
struct UpdateRun: Sendable {
    private static let pollInterval = Duration.milliseconds(100)

    let engine: CheckpointEngine
    let order: UpdateOrder
    /// The other hosts that update at the same time.
    let hosts: HostGroupConfiguration?
    let display = ProgressDisplay()

    func run() async throws {
        defer { display.end() }
        // A checkpoint that cannot be used is told at once, not after the wait for the engines.
        if let path = order.path { _ = try CheckpointSource.open(paths: [path]) }
        try await waitForEngines()
        if let hosts {
            display.begin(
                "hosts",
                "this is host \(hosts.hostRank) of \(hosts.hostCount); they meet at "
                    + "\(hosts.address):\(hosts.port)")
        }
        try await engine.joinHosts()
        if let path = order.path {
            try await deliver(try await register(path))
            if order.source != nil {
                try await engine.unregister(order.name, releasesMemory: false)
            }
        }
        if let source = order.source {
            let pulled = try await pull(source)
            try await deliver(pulled)
            // What is not kept is gone by now.
            guard pulled.kept else { return }
        }
        if order.sleepSeconds > 0 {
            display.begin("sleep", "keeping the checkpoint for \(order.sleepSeconds) s")
            try await Task.sleep(for: .seconds(order.sleepSeconds))
        }
        try await engine.unregister(order.name, releasesMemory: true)
    }

    /// Updates the engines from what is registered, and tells how it went.
    private func deliver(_ checkpoint: CheckpointSummary) async throws {
        if let file = order.metasFile { try await saveMetas(file) }
        let status = try await update()
        display.end()
        let timeline = try await engine.timeline(status.id)
        // Neither result is lost because the other cannot be written.
        let printed = Result { try report(status, checkpoint) }
        let saved = Result { try saveTrace(timeline) }
        if let failure = status.error {
            throw CommandError(
                "the update \(status.id) failed in the stage \(status.stage.rawValue): "
                    + failure.message, cause: failure.cause)
        }
        do {
            try printed.get()
            try saved.get()
        } catch {
            display.note("\(status.id) has succeeded, but not all of its results were written")
            throw error
        }
    }

    private func saveTrace(_ timeline: Timeline) throws {
        guard let file = order.traceFile else { return }
        try file.write(timeline)
        display.note("trace written to \(file.path)")
    }

    /// Begins to read from the sources; the update follows what arrives.
    private func pull(_ source: SourceOrder) async throws -> CheckpointSummary {
        let addresses = try await source.allAddresses(engine)
        display.begin("pull", addresses.map(\.url).joined(separator: ", "))
        // Metas lead to memory that has all of it.
        let keep = order.metasFile != nil && source.keep == .whenItFits ? .always : source.keep
        let summary = try await engine.pull(
            order.name, remoteName: source.remoteName, sources: addresses, token: source.token,
            stallTimeout: source.stallTimeout, keep: keep)
        display.note(
            "\(summary.tensors) tensors, \(TextFormat.bytes(summary.bytes))"
                + (summary.kept
                    ? "" : ", which pass through \(TextFormat.bytes(summary.pooledBytes))"))
        return summary
    }

    /// Ends what runs, after a signal.
    func stop() async {
        display.note("stopping: the update is cancelled, its memory and files are removed")
        await engine.shutDown()
    }

    private func waitForEngines() async throws {
        let count = order.request.instances.count
        display.begin("ready", "asking \(count == 1 ? "the engine" : "\(count) engines")")
        let told = Mutex<[String: String]>([:])
        try await engine.waitUntilReady(
            order.request.instances, timeoutSeconds: order.readySeconds
        ) { engine, answer in
            // Each answer once: a starting engine says the same for minutes.
            let isNew = told.withLock { $0.updateValue(answer, forKey: engine) != answer }
            if isNew { display.note("waiting for \(engine): \(answer)") }
        }
    }

    private func register(_ path: String) async throws -> CheckpointSummary {
        display.begin("register", path)
        let summary = try await engine.register(
            order.name, paths: [path], consumes: order.consumes
        ) { done, total in
            display.report(done, total)
        }
        display.note(
            "\(summary.tensors) tensors, \(TextFormat.bytes(summary.bytes)) in \(summary.files) "
                + "files, \(TextFormat.fixed(summary.registerSeconds, 2)) s")
        return summary
    }

    private func saveMetas(_ file: OutputFile) async throws {
        let document = try await engine.gatherMetas(order.name)
        try file.write(Array(try JSONOutput.text(document).utf8))
        display.note("metas written to \(file.path)")
    }

    private func update() async throws -> UpdateStatus {
        display.begin(
            "update", order.request.instances.map(\.updateURL.description).joined(separator: ", "))
        let started = try await engine.startUpdate(order.name, order.request)
        return try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await showProgress(started.id) }
            let ended = try await engine.finishedUpdate(started.id)
            group.cancelAll()
            return ended
        }
    }

    /// Reports until it is cancelled.
    private func showProgress(_ id: String) async throws {
        while !Task.isCancelled {
            let status = try await engine.update(id)
            if status.stage == .reload { display.report(status.loadedBytes, status.bytes) }
            try? await Task.sleep(for: Self.pollInterval)
        }
    }

    private func report(_ status: UpdateStatus, _ checkpoint: CheckpointSummary) throws {
        guard order.printsJSON else {
            try Terminal.standardOutput.print(UpdateReport.text(status, checkpoint))
            return
        }
        try Terminal.standardOutput.print(JSONOutput.text(status))
    }
}
