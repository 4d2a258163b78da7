import CheckpointDevice
import CheckpointModel
import CheckpointNative
import CheckpointPlan
import CheckpointPull
import CheckpointTransport
import Logging

/// The memory that pulls read into.
extension CheckpointEngine {
    /// Memory for what the sources offer, and what a pull into it has to know.
    func memory(for offer: PullOffer, _ keep: PullKeep) async throws(EngineError) -> (
        RegisteredCheckpoint, PullRun.Target
    ) {
        guard keep != .never else { return try await ring(for: offer) }
        do throws(EngineError) {
            return try await whole(for: offer)
        } catch {
            guard keep == .whenItFits, error.code == .insufficientMemory else { throw error }
            logger.notice(
                "the checkpoint passes through and is not kept",
                metadata: ["reason": "\(error.message)"])
            return try await ring(for: offer)
        }
    }

    /// Memory for all of it, laid out as the sources'.
    private func whole(for offer: PullOffer) async throws(EngineError) -> (
        RegisteredCheckpoint, PullRun.Target
    ) {
        let catalog = offer.catalog
        let segments = try await segments(catalog.shards.map(\.byteCount))
        let checksums = ChunkChecksums(grid: offer.order.grid)
        let registered = try await registered(
            catalog, segments, feed: PullFeed(order: offer.order),
            sharing: SharedCheckpointCache(SharedCheckpoint(catalog, checksums)))
        return (registered, Self.target(.whole(offer.order), registered, checksums))
    }

    /// A ring as large as the configuration says, or as there is memory for.
    private func ring(for offer: PullOffer) async throws(EngineError) -> (
        RegisteredCheckpoint, PullRun.Target
    ) {
        let ranges = offer.catalog.tensors.map { ShardRange(shard: $0.shard, range: $0.range) }
        let (ring, segment) = try await ring(for: ranges, in: offer.order.grid)
        let tensors = zip(offer.catalog.tensors, ring.offsets).compactMap { tensor, offset in
            ByteRange(offset: offset, byteCount: tensor.range.byteCount).map {
                TensorEntry(
                    name: tensor.name, dtype: tensor.dtype, shape: tensor.shape, shard: 0, range: $0
                )
            }
        }
        let catalog: Catalog
        do throws(Catalog.Flaw) {
            catalog = try Catalog(
                shards: [Catalog.Shard(name: "ring", byteCount: ring.byteCount)], tensors: tensors)
        } catch {
            pool.release([segment], retains: false)
            throw EngineError(.sourceFailed, "what the sources have cannot pass through: \(error)")
        }
        let passing = PassingCheckpoint(ring: ring)
        let registered = try await registered(
            catalog, [segment], feed: PullFeed(order: ring.order), passing: passing)
        return (
            registered,
            Self.target(.ring(ring), registered, ChunkChecksums(grid: offer.order.grid))
        )
    }

    private func ring(for ranges: [ShardRange], in grid: ChunkGrid) async throws(EngineError)
        -> (PullRing, PoolSegment)
    {
        let byteCount = ranges.reduce(0) { $0 + $1.range.byteCount }
        guard byteCount <= grid.shardByteCounts.reduce(0, +) else {
            throw EngineError(.sourceFailed, "the sources name tensors that overlap")
        }
        let least = PullRing.slotCountMin(grid, ranges)
        var count = max(
            least, min(grid.count, configuration.pull.ringByteCount / grid.chunkByteCount))
        while true {
            let ring = try Self.ring(grid, ranges, slotCount: count)
            do throws(EngineError) {
                return (ring, try await segments([ring.byteCount])[0])
            } catch {
                guard error.code == .insufficientMemory, count > least else { throw error }
                count = max(least, count / 2)
            }
        }
    }

    private static func ring(_ grid: ChunkGrid, _ ranges: [ShardRange], slotCount: Int)
        throws(EngineError) -> PullRing
    {
        do throws(PullRing.Refusal) {
            return try PullRing(grid: grid, ranges: ranges, slotCount: slotCount)
        } catch {
            throw EngineError(
                .invalidCheckpoint, "the checkpoint cannot pass through a ring: \(error)")
        }
    }

    private func segments(_ byteCounts: [Int]) async throws(EngineError) -> [PoolSegment] {
        let roomCount = pool.roomCount
        do throws(DeviceError) {
            do throws(DeviceError) {
                return try pool.acquire(byteCounts: byteCounts)
            } catch {
                // What was removed to make room may be mapped still.
                guard error.code == .insufficientMemory, pool.roomCount > roomCount,
                    await drops.wait()
                else { throw error }
                return try pool.acquire(byteCounts: byteCounts)
            }
        } catch {
            throw EngineError(error)
        }
    }

    private static func target(
        _ layout: PullLayout, _ registered: RegisteredCheckpoint, _ checksums: ChunkChecksums
    ) -> PullRun.Target {
        guard let feed = registered.feed else {
            preconditionFailure("what is pulled has a feed")
        }
        return PullRun.Target(
            layout, locations: registered.locations, feed: feed, checksums: checksums,
            room: registered.passing?.room)
    }

    /// Takes `segments`, also when it throws.
    private func registered(
        _ catalog: Catalog, _ segments: [PoolSegment], feed: PullFeed,
        sharing: SharedCheckpointCache = SharedCheckpointCache(),
        passing: PassingCheckpoint? = nil
    ) async throws(EngineError) -> RegisteredCheckpoint {
        do throws(EngineError) {
            let plan = try plan(catalog, passing)
            let locations = segments.map { segment in
                SegmentLocation(
                    path: segment.path, inode: segment.inode, fileByteCount: segment.byteCount,
                    dataOffset: 0)
            }
            return RegisteredCheckpoint(
                shards: [], catalog: catalog, locations: locations, pins: try await pins(locations),
                segments: segments, buckets: plan.buckets, seconds: 0,
                digest: String(plan.digest, radix: 16), feed: feed, sharing: sharing,
                passing: passing)
        } catch {
            pool.release(segments, retains: false)
            throw error
        }
    }

    private func plan(_ catalog: Catalog, _ passing: PassingCheckpoint?) throws(EngineError)
        -> UpdatePlan
    {
        var byteCountMax = configuration.bucketByteCountMax
        if let passing { byteCountMax = min(byteCountMax, max(1, passing.bucketByteCountMax)) }
        while true {
            let plan = UpdatePlan(catalog: catalog, bucketByteCountMax: byteCountMax)
            guard plan.order == Array(catalog.tensors.indices) else {
                throw EngineError(
                    .sourceFailed,
                    "the sources deliver tensors in another order; install the same version of "
                        + "checkpoint-engine on all hosts")
            }
            let buckets = plan.buckets.map { $0.first..<($0.first + $0.count) }
            // Single tensors always find room.
            if byteCountMax == 1 || passing?.hasRoom(for: buckets) ?? true { return plan }
            byteCountMax = max(1, byteCountMax / 2)
        }
    }

    private func pins(_ locations: [SegmentLocation]) async throws(EngineError) -> [PinnedFile] {
        guard let pinned = gpus?.pinned else { return [] }
        do throws(DeviceError) {
            return try await BlockingThread.run("ckpt-pin") { () throws(DeviceError) in
                try pinned.pin(locations)
            }
        } catch {
            throw EngineError(error)
        }
    }
}
