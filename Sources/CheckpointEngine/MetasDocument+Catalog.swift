import CheckpointModel

extension MetasDocument {
    /// The metas of a daemon that holds the whole catalog, as rank 0, one buffer for each shard.
    init(catalog: Catalog) {
        var parameters: [[Parameter]] = catalog.shards.map { _ in [] }
        for tensor in catalog.tensors {
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
