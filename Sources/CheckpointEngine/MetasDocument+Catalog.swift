import CheckpointModel

extension MetasDocument {
    /// The metas of a daemon that holds the whole catalog, as rank 0, one buffer for each shard; `session` and
    /// `addresses`, one for each shard, where its transfer engine has them.
    init(
        catalog: Catalog, session: String? = nil, addresses: [UInt]? = nil,
        source: Source? = nil
    ) {
        var parameters: [[Parameter]] = catalog.shards.map { _ in [] }
        let tensors = catalog.tensors.sorted {
            ($0.shard, $0.range.offset) < ($1.shard, $1.range.offset)
        }
        for tensor in tensors {
            parameters[tensor.shard].append(
                Parameter(
                    name: tensor.name, dtype: tensor.dtype.torchName ?? tensor.dtype.rawValue,
                    shape: tensor.shape.dimensions, alignedSize: tensor.range.byteCount))
        }
        let buffers = zip(catalog.shards, parameters).enumerated().map { index, pair in
            Buffer(
                metas: pair.1, ptr: Int(bitPattern: addresses?[index] ?? 0),
                size: pair.0.byteCount)
        }
        self.init(
            ranks: [
                0: Rank(
                    p2pStoreAddress: session, buffers: buffers, rdmaDevice: "", source: source)
            ])
    }
}
