public import CheckpointModel

/// The files of a checkpoint, opened, parsed and checked against each other.
public struct CheckpointSource: Hashable, Sendable {
    /// In the order of `Catalog.shards`.
    public let shards: [ShardFile]
    public let catalog: Catalog
    /// Tensors that lie in the files and are no part of the checkpoint: their index lists them for other files, or
    /// for none.
    public let leftOutCount: Int

    /// Opens what `paths` name, each a `.safetensors` file, a `*.safetensors.index.json`, or a directory with
    /// either. Every tensor has one name in all of them. Without any tensor it is no checkpoint, unless it is
    /// `aPart` of one, whose rest others have. All files lie in `roots`.
    public static func open(
        paths: [String], in roots: FileRoots = .everywhere, aPart: Bool = false
    ) throws(FilesError) -> CheckpointSource {
        guard !paths.isEmpty else {
            throw FilesError(.notACheckpoint, "", "no file is named")
        }
        var opening = SourceOpening(roots: roots)
        for path in paths { try opening.add(path) }
        return try opening.finished(paths, aPart: aPart)
    }
}

/// A source while its files are opened one after the other.
private struct SourceOpening {
    private let roots: FileRoots
    private var shards: [ShardFile] = []
    private var tensors: [TensorEntry] = []
    private var owners: [ExactString: Int] = [:]
    private var leftOutCount = 0

    init(roots: FileRoots) {
        self.roots = roots
    }

    mutating func add(_ path: String) throws(FilesError) {
        let listing = try CheckpointListing(path, in: roots)
        for (place, file) in listing.files.enumerated() {
            let (shard, header) = try ShardFile.open(file, in: roots)
            let parts = try listing.index?.tensors(of: header, in: place) ?? header.tensors
            leftOutCount += header.tensors.count - parts.count
            try add(parts, of: shard)
        }
    }

    private mutating func add(_ parts: [SafetensorsHeader.Tensor], of shard: ShardFile)
        throws(FilesError)
    {
        let number = shards.count
        shards.append(shard)
        owners.reserveCapacity(owners.count + parts.count)
        for tensor in parts {
            if let other = owners.updateValue(number, forKey: ExactString(tensor.name)) {
                throw FilesError(
                    .duplicateTensor, shard.givenPath,
                    other == number
                        ? "the tensor \(tensor.name) stands twice in the header"
                        : "the tensor \(tensor.name) is also in \(shards[other].givenPath)")
            }
            tensors.append(
                TensorEntry(
                    name: tensor.name, dtype: tensor.dtype, shape: tensor.shape,
                    shard: number, range: tensor.range))
        }
    }

    func finished(_ paths: [String], aPart: Bool) throws(FilesError) -> CheckpointSource {
        guard !tensors.isEmpty || aPart else {
            throw FilesError(
                .notACheckpoint, paths[0],
                "there is no tensor in \(shards.count == 1 ? "the file" : "the \(shards.count) files")"
                    + "; an update from it would change nothing")
        }
        let described = shards.map { shard in
            Catalog.Shard(name: shard.givenPath.lastPathComponent, byteCount: shard.dataByteCount)
        }
        do throws(Catalog.Flaw) {
            return CheckpointSource(
                shards: shards, catalog: try Catalog(shards: described, tensors: tensors),
                leftOutCount: leftOutCount)
        } catch {
            throw FilesError(
                .malformed, paths[0], "the files make no checkpoint", cause: "\(error)")
        }
    }
}
