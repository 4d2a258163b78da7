import CheckpointDevice
import CheckpointHosts
public import CheckpointModel
import CheckpointPlan
import CheckpointPull
import CheckpointTransfer
import CheckpointTransport
import CheckpointWorker
public import Logging

/// Register · gather · update: the public face of the engine, and the only place that composes the
/// targets underneath. All blocking work runs on threads of its own.
///
/// The owner calls ``shutDown()`` in the end: it removes every file and socket that the engine made.
public actor CheckpointEngine {
    let configuration: EngineConfiguration
    let logger: Logger
    let pool: SegmentPool
    let sockets: PrivateDirectory
    let context: ZeroMQContext
    let client: EngineClient
    /// `nil` where engines are on the CPU.
    let gpus: GPUSet?
    let exchanges: ExchangeCache
    let nativeGroups = NativeGroups()
    /// The agents that other hosts read from; they start with the first of those.
    let sharingAgents: SharingAgents
    /// Those that this host reads with.
    let readingAgents: SpareAgents
    let mappedShards = MappedShards()
    /// What lets go of memory that is given back to the system, until it has.
    let drops = PendingDrops()
    let sourceClient: SourceClient
    var leases = LeaseBook()
    /// `nil` where this host updates alone.
    let hosts: HostGroup?
    var entries: [CheckpointName: RegistryEntry] = [:]
    var gathered = MetasDocument(ranks: [:])
    var history: UpdateHistory
    var running: [String: RunningUpdate] = [:] {
        didSet { runningCount.set(running.count) }
    }
    let runningCount = RunningCount()
    var counters = EngineStatistics()
    var isStopping = false

    /// An update's task and the way to stop it.
    struct RunningUpdate {
        let task: Task<Void, Never>
        let signal: LinkSignal
        let engines: Set<String>
        let clientCalls: ClientCalls?
    }

    /// Makes the private directories, sweeping what killed daemons of the same user left behind, and loads
    /// ZeroMQ.
    public init(configuration: EngineConfiguration, logger: Logger) throws(EngineError) {
        try RuntimeDirectory.check(configuration.runtimeDirectory)
        do throws(WorkerError) {
            self.context = try ZeroMQContext(libraryNames: configuration.zeroMQLibraryNames)
        } catch {
            throw EngineError(error)
        }
        do throws(HostError) {
            self.hosts = try configuration.hosts.map { hosts throws(HostError) in
                try HostGroup(hosts)
            }
        } catch {
            throw EngineError(error)
        }
        do throws(DeviceError) {
            let gpus = try GPUSet.open(configuration.gpu, logger)
            self.gpus = gpus
            let (agent, count) = (configuration.pull.agent, configuration.pull.agentCount)
            let sharing = SharingAgents(agent, count: count, logger: logger)
            sharingAgents = sharing
            let reading = SpareAgents(agent, count: count, logger: logger)
            readingAgents = reading
            let (mapped, drops) = (mappedShards, drops)
            self.pool = try SegmentPool(
                directory: configuration.sharedMemoryDirectory,
                byteCountMax: configuration.memoryByteCountMax,
                onDrop: { paths in
                    gpus?.pinned.drop(paths: paths)
                    mapped.drop(paths: paths)
                    drops.add(
                        Task {
                            await reading.drop(paths: paths)
                            for path in paths { await sharing.remove(path: path) }
                        })
                })
            self.sockets = try PrivateDirectory(
                parent: configuration.runtimeDirectory, prefix: PoolNames.socketPrefix)
        } catch {
            throw EngineError(error)
        }
        self.exchanges = ExchangeCache(ncclLibraryNames: configuration.gpu.ncclLibraryNames)
        ReferenceCounterFile.sweep()
        // Last: a client that was made has to be shut down.
        self.client = EngineClient(token: configuration.engineToken)
        self.sourceClient = SourceClient()
        self.configuration = configuration
        self.logger = logger
        self.history = UpdateHistory(countMax: configuration.updateHistoryCountMax)
    }

    /// Begins to look for the other hosts, if there are any; to be called once, before updates.
    public func joinHosts() async throws(EngineError) {
        guard let hosts else { return }
        guard gpus != nil else {
            throw EngineError(
                .invalidArgument,
                "several hosts update together on GPUs only, and this process sees none: on the CPU each "
                    + "host updates its own engines, without '--rendezvous' and, under torchrun on "
                    + "several nodes, with '--no-torchrun'")
        }
        do throws(HostError) { try await hosts.start() } catch { throw EngineError(error) }
    }

    /// How many GPUs this process sees; `nil` where engines are on the CPU.
    public nonisolated var gpuCount: Int? { gpus?.gpus.count }

    /// The checkpoints by name.
    public func checkpoints() -> [CheckpointSummary] {
        entries.values.map(\.summary).sorted { $0.name < $1.name }
    }

    /// Gives the device memory that is kept between updates back; pinned host memory stays.
    public func releaseGPUMemory() {
        exchanges.removeAll()
        nativeGroups.removeAll()
        gpus?.releaseMemory()
    }

    public func checkpoint(_ name: CheckpointName) throws(EngineError) -> CheckpointSummary {
        try entry(name).summary
    }

    /// Counters since the start and gauges of now.
    public func statistics() -> EngineStatistics {
        var statistics = counters
        let usage = pool.usage
        statistics.checkpoints = entries.count
        statistics.pooledBytes = usage.usedByteCount
        statistics.retainedBytes = usage.retainedByteCount
        for entry in entries.values { statistics.inPlaceBytes.count(entry.summary.inPlaceBytes) }
        statistics.pinnedBytes = gpus?.pinned.byteCount ?? 0
        statistics.gpuBytes = gpus?.heldByteCount ?? 0
        statistics.updatesRunning = running.count
        leases.dropEnded(at: .now)
        statistics.leases = leases.count
        statistics.leasesBegun = leases.begunCount
        return statistics
    }

    /// Cancels what runs, waits for it, and removes every socket and file that the engine made.
    public func shutDown() async {
        isStopping = true
        for update in running.values {
            update.signal.fail(WorkerError(.cancelled, "the daemon is stopping"))
            update.task.cancel()
        }
        for entry in entries.values {
            if case .registering(let progress) = entry.state { progress.cancel() }
        }
        for entry in entries.values { entry.pull?.cancel() }
        for update in running.values { await update.task.value }
        // Nothing may be written to memory that is given back.
        for entry in entries.values { await entry.pull?.value }
        await readingAgents.stop()
        await sharingAgents.stop()
        while entries.values.contains(where: \.isRegistering) {
            await Rest.take(.milliseconds(10))
        }
        for entry in entries.values { removeConsumed(entry) }
        entries = [:]
        gpus?.pinned.dropAll()
        releaseGPUMemory()
        pool.close()
        sockets.remove()
        await hosts?.close()
        await client.shutDown()
        await sourceClient.shutDown()
    }

    func entry(_ name: CheckpointName) throws(EngineError) -> RegistryEntry {
        guard let entry = entries[name] else {
            let known = entries.keys.map(\.description).sorted().joined(separator: ", ")
            throw EngineError(
                .notFound,
                "no checkpoint is registered as \(name); registered are: "
                    + (known.isEmpty ? "none" : known))
        }
        return entry
    }

    func checkRunning() throws(EngineError) {
        if isStopping { throw EngineError(.cancelled, "the daemon is stopping") }
    }
}
