public import CheckpointModel
import CheckpointNative
public import CheckpointPlan
import CheckpointWorker

/// What the sources have: the first answer decides what is read, and where its bytes go.
public struct PullOffer: Sendable {
    /// The tensors in the order of delivery; shards are the sources'.
    public let catalog: Catalog
    public let order: PullOrder
    /// Names the tensors and their places.
    public let digest: String

    /// Processes whose memory is read as it is; empty where daemons are asked.
    let memory: [MemorySource]
    let request: PullRequest
    let client: SourceClient

    /// Asks the sources until one answers. Throws when none does, naming what each of them said, and soon
    /// after `isCancelled`.
    public static func ask(
        _ request: PullRequest, client: SourceClient,
        isCancelled: @escaping @Sendable () -> Bool = { false }
    ) async throws(PullError) -> PullOffer {
        guard request.sources.contains(where: { $0.url != request.reader }) else {
            throw PullError(
                .noSource, "the only source of \(request.checkpoint) is this daemon itself")
        }
        let deadline = ContinuousClock.now + request.stallTimeout
        let sources = request.sources.filter { $0.url != request.reader }
        var answers: [String] = []
        repeat {
            let asking = FirstAnswer(silenceMax: request.silenceMax / 2, isCancelled: isCancelled)
            switch try await asking.of(sources, ask: { await answer($0, request, client) }) {
            case .found(let offer): return offer
            case .refused(let refusals):
                answers = refusals.map(\.message)
                guard refusals.contains(where: \.isPassing) else {
                    throw noSource(request, answers)
                }
            }
            do { try await Task.sleep(for: .milliseconds(500)) } catch {
                throw PullError(.cancelled, "the pull was cancelled")
            }
        } while ContinuousClock.now < deadline
        throw noSource(request, answers)
    }

    private static func noSource(_ request: PullRequest, _ answers: [String]) -> PullError {
        PullError(
            .noSource,
            "none of the sources has \(request.checkpoint) to read: "
                + answers.joined(separator: "; "))
    }

    private static func answer(
        _ source: SourceAddress, _ request: PullRequest, _ client: SourceClient
    ) async -> Result<PullOffer, SourceClient.Refusal> {
        do throws(SourceClient.Refusal) {
            return .success(try await ask(source, request, client))
        } catch {
            return .failure(error)
        }
    }

    private static func ask(
        _ source: SourceAddress, _ request: PullRequest, _ client: SourceClient
    ) async throws(SourceClient.Refusal) -> PullOffer {
        let lease = try await client.begin(request.checkpoint, at: source, reader: nil)
        let catalog: [UInt8]
        do throws(SourceClient.Refusal) {
            catalog = try await client.catalog(of: lease.id, at: source)
        } catch {
            await client.end(lease.id, at: source)
            throw error
        }
        await client.end(lease.id, at: source)
        // It may have a million tensors.
        return try await BlockingThread.run("ckpt-catalog") {
            Result { () throws(SourceClient.Refusal) in
                try PullOffer(catalog, lease, from: source, request, client)
            }
        }.get()
    }
}

extension PullOffer {
    /// Reads the catalog that a source has sent.
    private init(
        _ bytes: [UInt8], _ lease: SourceLease, from source: SourceAddress, _ request: PullRequest,
        _ client: SourceClient
    ) throws(SourceClient.Refusal) {
        let tensors: [TensorEntry]
        do throws(WorkerError) {
            tensors = try CatalogMessage.rows(of: bytes)
        } catch {
            throw .refused("\(source) sent a catalog that cannot be read: \(error.message)")
        }
        guard !tensors.isEmpty else {
            throw .refused("\(source) has a checkpoint without tensors")
        }
        let shards = lease.shardByteCounts.enumerated().map { index, byteCount in
            Catalog.Shard(name: "shard-\(index)", byteCount: byteCount)
        }
        let catalog: Catalog
        do throws(Catalog.Flaw) {
            catalog = try Catalog(shards: shards, tensors: tensors)
        } catch {
            throw .refused("\(source) sent an impossible catalog: \(error)")
        }
        guard Self.doNotOverlap(catalog),
            let grid = ChunkGrid(
                shardByteCounts: lease.shardByteCounts, chunkByteCount: lease.chunkByteCount),
            let order = PullOrder(
                grid: grid,
                ranges: tensors.map { ShardRange(shard: $0.shard, range: $0.range) }),
            Set(tensors.map { ExactString($0.name) }).count == tensors.count
        else {
            throw .refused("\(source) sent a catalog whose tensors do not fit their shards")
        }
        self.init(
            catalog: catalog, order: order, digest: lease.digest, memory: [], request: request,
            client: client)
    }

    /// Whether the tensors have no more bytes than the shards that they lie in. Else they overlap, and to look
    /// at the chunks of each could take for ever.
    static func doNotOverlap(_ catalog: Catalog) -> Bool {
        guard let tensors = ByteCount.sum(catalog.tensors.lazy.map(\.range.byteCount)),
            let shards = ByteCount.sum(catalog.shards.lazy.map(\.byteCount))
        else { return false }
        return tensors.value <= shards.value
    }
}

extension SourceClient.Refusal {
    var message: String {
        switch self {
        case .unreachable(let text), .refused(let text): text
        }
    }

    /// Whether it may answer otherwise when it is asked again.
    var isPassing: Bool {
        if case .unreachable = self { true } else { false }
    }
}
