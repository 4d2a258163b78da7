import CheckpointModel
import CheckpointPlan
import CheckpointPull
import CheckpointWorker
import Synchronization

/// A checkpoint as other hosts read it: its grid, its catalog as they are sent it, its checksums.
final class SharedCheckpoint: Sendable {
    let grid: ChunkGrid
    let catalogBody: [UInt8]
    let digest: String
    let checksums: ChunkChecksums

    /// Looks at the files of a checkpoint whose bytes are all there.
    convenience init(_ registered: RegisteredCheckpoint) throws(EngineError) {
        let grid = try Self.grid(registered.catalog)
        do throws(PullError) {
            var shards: [StoredShard] = []
            for (location, shard) in zip(registered.locations, registered.catalog.shards) {
                shards.append(try StoredShard(location, byteCount: shard.byteCount))
            }
            self.init(registered.catalog, ChunkChecksums(grid: grid, shards: shards))
        } catch {
            throw EngineError(error)
        }
    }

    /// One that is still being read: whoever reads it notes the checksums.
    init(_ catalog: Catalog, _ checksums: ChunkChecksums) {
        grid = checksums.grid
        catalogBody = CatalogMessage.body(catalog.tensors)
        self.checksums = checksums
        var hash = FNV1a()
        hash.combine(grid.chunkByteCount)
        for byteCount in grid.shardByteCounts { hash.combine(byteCount) }
        for byte in catalogBody { hash.combine(byte) }
        digest = String(hash.value, radix: 16)
    }

    deinit { checksums.close() }

    static func grid(_ catalog: Catalog) throws(EngineError) -> ChunkGrid {
        guard let grid = ChunkGrid(shardByteCounts: catalog.shards.map(\.byteCount)) else {
            throw EngineError(
                .invalidCheckpoint, "the checkpoint has too many bytes to be read by other hosts")
        }
        return grid
    }
}

/// The shared form of one checkpoint, made when it is first asked for.
final class SharedCheckpointCache: Sendable {
    private let known = Mutex<SharedCheckpoint?>(nil)

    init(_ known: SharedCheckpoint? = nil) {
        self.known.withLock { $0 = known }
    }

    func shared(_ registered: RegisteredCheckpoint) throws(EngineError) -> SharedCheckpoint {
        if let known = known.withLock({ $0 }) { return known }
        let made = try SharedCheckpoint(registered)
        return known.withLock { known in
            if let known { return known }
            known = made
            return made
        }
    }
}

extension EngineError {
    init(_ error: PullError) {
        let code: Code =
            switch error.code {
            case .agentMissing, .system, .memoryInUse: .system
            case .insufficientMemory: .insufficientMemory
            case .noSource, .sourceFailed, .invalidAnswer: .sourceFailed
            case .changed: .invalidCheckpoint
            case .cancelled: .cancelled
            }
        self.init(code, error.message)
    }
}
