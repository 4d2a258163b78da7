import CheckpointDevice
import CheckpointFiles
import CheckpointModel
import CheckpointNative
import CheckpointPlan
import Synchronization

/// Brings a checkpoint into shared memory: the blocking part of a registration.
struct Registration: Sendable {
    let paths: [String]
    let roots: FileRoots
    /// Whether the files will be deleted: then no link may lead to them.
    let consumes: Bool
    /// Whether other hosts may have the rest of the checkpoint, and this one nothing of it.
    let isPart: Bool
    let pool: SegmentPool
    /// Pins what is registered; `nil` where engines are on the CPU.
    let pinned: PinnedFiles?
    let readThreadCount: Int?
    let bucketByteCountMax: Int
    let progress: RegistrationProgress
    let onProgress: (@Sendable (Int, Int) -> Void)?

    /// Validates the files, takes memory, reads. Keeps nothing when it throws.
    func run() throws(EngineError) -> RegisteredCheckpoint {
        let source = try open()
        let onDisk = source.shards.filter { !$0.isSharedMemory }
        let segments: [PoolSegment]
        do {
            segments = try pool.acquire(byteCounts: onDisk.map(\.dataByteCount))
        } catch {
            throw EngineError(error)
        }
        let locations = Self.locations(of: source, segments)
        let pins: [PinnedFile]
        let shards: [ShardFile]
        do {
            pins = try readAndPin(source.shards, segments, locations)
            shards = try pins.isEmpty ? source.shards : Self.pinned(source.shards)
        } catch {
            pool.release(segments, retains: false)
            pinned?.dropStale()
            throw error
        }
        defer { Heap.trim() }
        let plan = UpdatePlan(catalog: source.catalog, bucketByteCountMax: bucketByteCountMax)
        return RegisteredCheckpoint(
            shards: shards,
            catalog: source.catalog.ordered(plan.order),
            locations: locations, pins: pins, segments: segments, buckets: plan.buckets,
            seconds: progress.start.duration(to: .now).inSeconds,
            digest: String(plan.digest, radix: 16), leftOutCount: source.leftOutCount)
    }

    private func open() throws(EngineError) -> CheckpointSource {
        do {
            if consumes { for path in paths { try ShardFile.refuseLinks(in: path) } }
            return try CheckpointSource.open(paths: paths, in: roots, aPart: isPart)
        } catch {
            throw EngineError(error)
        }
    }

    private static func pinned(_ shards: [ShardFile]) throws(EngineError) -> [ShardFile] {
        do {
            return try shards.map { shard throws(FilesError) in
                shard.isSharedMemory ? try shard.withCurrentTime() : shard
            }
        } catch {
            throw EngineError(error)
        }
    }

    /// Reads and pins side by side: pages that one of them has filled are there for the other.
    private func readAndPin(
        _ shards: [ShardFile], _ segments: [PoolSegment], _ locations: [SegmentLocation]
    ) throws(EngineError) -> [PinnedFile] {
        let onDisk = shards.filter { !$0.isSharedMemory }
        guard let pinned else {
            try read(onDisk, into: segments)
            return []
        }
        // What was written before the pin would not be noticed after it.
        do {
            for shard in shards where shard.isSharedMemory { try shard.checkUnchanged() }
        } catch {
            throw EngineError(error)
        }
        let pins = Mutex<Result<[PinnedFile], DeviceError>>(.success([]))
        let failure = Mutex<EngineError?>(nil)
        BlockingThread.runAll("ckpt-register", count: 2) { index in
            if index == 0 {
                do throws(EngineError) { try read(onDisk, into: segments) } catch {
                    failure.withLock { $0 = error }
                }
            } else {
                let result = Result { () throws(DeviceError) in try pinned.pin(locations) }
                pins.withLock { $0 = result }
            }
        }
        if let failure = failure.withLock({ $0 }) { throw failure }
        do { return try pins.withLock({ $0 }).get() } catch { throw EngineError(error) }
    }

    private func read(_ shards: [ShardFile], into segments: [PoolSegment]) throws(EngineError) {
        let total = shards.reduce(0) { $0 + $1.dataByteCount }
        progress.report(done: 0, total: total)
        onProgress?(0, total)
        let copies = zip(shards, segments).map { shard, segment in
            ShardReader.Copy(shard: shard, destinationPath: segment.path)
        }
        let progress = progress
        let onProgress = onProgress
        do {
            try ShardReader(threadCount: readThreadCount).read(
                copies,
                progress: { done in
                    progress.report(done: done, total: total)
                    onProgress?(done, total)
                },
                isCancelled: { progress.isCancelled })
        } catch {
            throw EngineError(error)
        }
    }

    private static func locations(of source: CheckpointSource, _ segments: [PoolSegment])
        -> [SegmentLocation]
    {
        var rest = segments[...]
        return source.shards.compactMap { shard in
            if shard.isSharedMemory {
                return SegmentLocation(
                    path: shard.path, inode: shard.inode, fileByteCount: shard.byteCount,
                    dataOffset: shard.dataOffset)
            }
            return rest.popFirst().map { segment in
                SegmentLocation(
                    path: segment.path, inode: segment.inode, fileByteCount: segment.byteCount,
                    dataOffset: 0)
            }
        }
    }
}
