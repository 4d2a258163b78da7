public import CheckpointModel

/// The files of a checkpoint, opened, parsed and checked against each other.
public struct CheckpointSource: Hashable, Sendable {
    /// In the order of `Catalog.shards`.
    public let shards: [ShardFile]
    public let catalog: Catalog

    /// Opens what `paths` name, each a `.safetensors` file, a `*.safetensors.index.json`, or a directory with
    /// either. Every tensor has one name in all of them.
    public static func open(paths: [String]) throws(FilesError) -> CheckpointSource {
        guard !paths.isEmpty else {
            throw FilesError(.notACheckpoint, "", "no file is named")
        }
        var shards: [ShardFile] = []
        var tensors: [TensorEntry] = []
        var owners: [String: Int] = [:]
        for path in paths {
            let listing = try CheckpointListing(path)
            for file in listing.files {
                let (shard, header) = try ShardFile.open(file)
                try listing.check(header, of: file)
                let number = shards.count
                for tensor in header.tensors {
                    if let other = owners.updateValue(number, forKey: tensor.name) {
                        throw FilesError(
                            .duplicateTensor, file,
                            "the tensor \(tensor.name) is also in "
                                + (other == number ? shard.path : shards[other].path))
                    }
                    tensors.append(
                        TensorEntry(
                            name: tensor.name, dtype: tensor.dtype, shape: tensor.shape,
                            shard: number, range: tensor.range))
                }
                shards.append(shard)
            }
        }
        let described = shards.map { shard in
            Catalog.Shard(
                name: String(shard.path.split(separator: "/").last ?? ""),
                byteCount: shard.dataByteCount)
        }
        do throws(Catalog.Flaw) {
            return CheckpointSource(
                shards: shards, catalog: try Catalog(shards: described, tensors: tensors))
        } catch {
            throw FilesError(
                .malformed, paths[0], "the files make no checkpoint", cause: "\(error)")
        }
    }
}
