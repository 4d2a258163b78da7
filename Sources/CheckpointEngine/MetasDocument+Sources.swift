import CheckpointModel
import CheckpointPlan
import CheckpointPull

/// Whom loaded metas lead to: daemons, or, in those of PyPI's package, the memory of processes.
extension MetasDocument {
    /// The daemons that can be read from, each once.
    var sourceURLs: [String] {
        var urls: [String] = []
        var known: Set<String> = []
        for rank in ranks.keys.sorted() {
            guard let url = ranks[rank]?.source?.url, known.insert(url).inserted else { continue }
            urls.append(url)
        }
        return urls
    }

    /// What the bytes are at those daemons, if all say the same.
    var content: String? {
        let sources = ranks.values.compactMap(\.source)
        let contents = Set(sources.map(\.content))
        return contents.count == 1 ? contents.first ?? nil : nil
    }

    /// What the checkpoint is called at those daemons, if all say the same.
    var sourceName: CheckpointName? {
        let names = Set(ranks.values.compactMap { $0.source?.checkpoint })
        return names.count == 1 ? names.first.flatMap { CheckpointName($0) } : nil
    }

    /// The memory that the ranks have, with the catalog of all of them: a shard for each buffer, the tensors in
    /// the order of delivery. A tensor that several ranks have is taken from the first.
    func memory() throws(EngineError) -> (catalog: Catalog, sources: [MemorySource]) {
        var shards: [Catalog.Shard] = []
        var tensors: [TensorEntry] = []
        var names: Set<ExactString> = []
        var addresses: [String: [Int: UInt]] = [:]
        for number in ranks.keys.sorted() {
            guard let rank = ranks[number], let session = rank.p2pStoreAddress else { continue }
            for buffer in rank.buffers where buffer.ptr > 0 {
                addresses[session, default: [:]][shards.count] = UInt(buffer.ptr)
                tensors += try buffer.tensors(shard: shards.count, rank: number).filter {
                    names.insert(ExactString($0.name)).inserted
                }
                shards.append(
                    Catalog.Shard(name: "rank-\(number)-\(shards.count)", byteCount: buffer.size))
            }
        }
        let catalog: Catalog
        do throws(Catalog.Flaw) {
            catalog = try Catalog(shards: shards, tensors: tensors)
        } catch {
            throw EngineError(.invalidArgument, "the metas are impossible: \(error)")
        }
        // The order alone is wanted; the size of buckets has no part in it.
        let order = UpdatePlan(catalog: catalog, bucketByteCountMax: 1).order
        return (
            catalog.ordered(order),
            addresses.sorted { $0.key < $1.key }.map {
                MemorySource(session: $0.key, addresses: $0.value)
            }
        )
    }
}

extension MetasDocument.Buffer {
    /// The tensors, which follow one another from the buffer's beginning.
    func tensors(shard: Int, rank: Int) throws(EngineError) -> [TensorEntry] {
        var tensors: [TensorEntry] = []
        var offset = 0
        for meta in metas {
            guard let dtype = DType(torchName: meta.dtype), let shape = Shape(meta.shape),
                let byteCount = shape.byteCount(of: dtype), meta.alignedSize >= byteCount,
                let range = ByteRange(offset: offset, byteCount: byteCount),
                let end = ByteRange(offset: offset, byteCount: meta.alignedSize)?.end, end <= size
            else {
                throw EngineError(
                    .invalidArgument,
                    "the metas of rank \(rank) are impossible: the tensor \(meta.name.prefix(200)) of "
                        + "type \(meta.dtype.prefix(80)) does not fit its buffer of \(size) bytes")
            }
            tensors.append(
                TensorEntry(
                    name: meta.name, dtype: dtype, shape: shape, shard: shard, range: range))
            offset = end
        }
        return tensors
    }
}
