import CheckpointDevice
import CheckpointFiles
import CheckpointModel
import CheckpointPlan

/// Brings a checkpoint into shared memory: the blocking part of a registration.
struct Registration: Sendable {
    let paths: [String]
    let pool: SegmentPool
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
        do {
            try read(onDisk, into: segments)
        } catch {
            pool.release(segments, retains: false)
            throw error
        }
        defer { Heap.trim() }
        let plan = UpdatePlan(catalog: source.catalog, bucketByteCountMax: bucketByteCountMax)
        return RegisteredCheckpoint(
            shards: source.shards,
            catalog: Catalog(
                shards: source.catalog.shards,
                tensors: plan.order.map { source.catalog.tensors[$0] }),
            locations: Self.locations(of: source, segments), segments: segments,
            buckets: plan.buckets, seconds: progress.start.duration(to: .now).inSeconds)
    }

    private func open() throws(EngineError) -> CheckpointSource {
        do {
            return try CheckpointSource.open(paths: paths)
        } catch {
            throw EngineError(error)
        }
    }

    private func read(_ shards: [ShardFile], into segments: [PoolSegment]) throws(EngineError) {
        let total = shards.reduce(0) { $0 + $1.dataByteCount }
        progress.report(done: 0, total: total)
        onProgress?(0, total)
        let copies = zip(shards, segments).map { shard, segment in
            ShardReader.Copy(
                shard: shard, destinationDescriptor: segment.descriptor, destinationOffset: 0)
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
