import CheckpointModel

extension MetasDocument {
    /// The metas of a daemon that holds the whole catalog, as rank 0, one buffer for each shard.
    init(catalog: Catalog) {
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
        let buffers = zip(catalog.shards, parameters).map { shard, parameters in
            Buffer(metas: parameters, ptr: 0, size: shard.byteCount)
        }
        self.init(ranks: [0: Rank(p2pStoreAddress: nil, buffers: buffers, rdmaDevice: "")])
    }
}
