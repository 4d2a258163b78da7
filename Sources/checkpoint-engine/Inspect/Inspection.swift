import CheckpointFiles
import CheckpointModel

/// What `inspect` tells about a checkpoint.
struct Inspection: Encodable {
    struct File: Encodable {
        let path: String
        let bytes: Int
        let tensors: Int
        let isInSharedMemory: Bool

        enum CodingKeys: String, CodingKey {
            case path, bytes, tensors
            case isInSharedMemory = "in_shared_memory"
        }
    }

    struct Tensor: Encodable {
        let name: String
        let dtype: String
        let shape: [Int]
        let bytes: Int
        let file: String
    }

    let tensors: Int
    /// Tensors of the files that are no part of the checkpoint, by its index.
    let leftOut: Int
    /// Bytes of all tensors.
    let bytes: Int
    let dtypes: [String: Int]
    let files: [File]
    /// Present when every tensor was asked for.
    let list: [Tensor]?

    enum CodingKeys: String, CodingKey {
        case tensors, bytes, dtypes, files
        case leftOut = "left_out_tensors"
        case list = "tensor_list"
    }

    init(_ source: CheckpointSource, listsTensors: Bool) {
        let catalog = source.catalog
        var counts = [Int](repeating: 0, count: source.shards.count)
        for tensor in catalog.tensors { counts[tensor.shard] += 1 }
        tensors = catalog.tensors.count
        leftOut = source.leftOutCount
        bytes = catalog.byteCount
        dtypes = Dictionary(
            uniqueKeysWithValues: catalog.countByDType.map { ($0.rawValue, $1) })
        files = zip(source.shards, counts).map { shard, count in
            File(
                path: shard.givenPath, bytes: shard.byteCount, tensors: count,
                isInSharedMemory: shard.isSharedMemory)
        }
        list =
            listsTensors
            ? catalog.tensors.map { tensor in
                Tensor(
                    name: tensor.name, dtype: tensor.dtype.rawValue,
                    shape: tensor.shape.dimensions, bytes: tensor.range.byteCount,
                    file: source.shards[tensor.shard].givenPath)
            } : nil
    }

    /// Tables for people.
    func text() -> String {
        let counts = dtypes.sorted { $0.key < $1.key }.map { "\($0.value) \($0.key)" }
        var text =
            "\(tensors) tensors (\(counts.joined(separator: ", "))), "
            + "\(TextFormat.bytes(bytes)) in \(files.count) files\n"
        if leftOut > 0 {
            text += "\(leftOut) tensors of these files are left out: the index does not list them "
            text += "there\n"
        }
        text += "\n"
        var rows = [["file", "size", "tensors", ""]]
        for file in files {
            rows.append([
                file.path, TextFormat.bytes(file.bytes), "\(file.tensors)",
                file.isInSharedMemory ? "in shared memory" : "",
            ])
        }
        text += TextFormat.table(rows, right: [1, 2])
        if let list {
            var rows = [["tensor", "dtype", "shape", "size"]]
            for tensor in list {
                let shape = tensor.shape.map(String.init).joined(separator: ", ")
                rows.append([
                    tensor.name, tensor.dtype, "[\(shape)]", TextFormat.bytes(tensor.bytes),
                ])
            }
            text += "\n" + TextFormat.table(rows, right: [3])
        }
        return text
    }
}
