import CheckpointFiles
import CheckpointModel
import CheckpointPlan
import CheckpointWorker

/// Compares every byte that the reference workers hold with the files of a checkpoint.
struct DemoComparison {
    let byteCount: Int
    /// Names of tensors with a byte that differs.
    let different: [String]

    /// `memoryPaths` are the workers' parameters, by rank; `bucketByteCountMax` is the engine's.
    init(files: [String], memoryPaths: [String], bucketByteCountMax: Int) throws {
        let source = try CheckpointSource.open(paths: files)
        let plan = UpdatePlan(catalog: source.catalog, bucketByteCountMax: bucketByteCountMax)
        let shards = try source.shards.map {
            try MappedFile(reading: $0.path, inode: nil, byteCount: $0.byteCount)
        }
        var byteCount = 0
        var different: Set<ExactString> = []
        for (rank, path) in memoryPaths.enumerated() {
            let memory = try MappedFile(reading: path, inode: nil, byteCount: nil)
            var offset = 0
            for place in plan.order {
                let tensor = source.catalog.tensors[place]
                let slice = TensorSlice(tensor, rank: rank, worldSize: memoryPaths.count)
                let start = source.shards[tensor.shard].dataOffset + tensor.range.offset
                let isEqual = (0..<slice.rowCount).allSatisfy { row in
                    memory.equals(
                        shards[tensor.shard], at: offset + row * slice.rowByteCount,
                        otherOffset: start + slice.offset + row * slice.rowStride,
                        byteCount: slice.rowByteCount)
                }
                if !isEqual { different.insert(ExactString(tensor.name)) }
                offset += slice.byteCount
            }
            byteCount += offset
            if offset != memory.byteCount { different.insert(ExactString("the length of \(path)")) }
        }
        self.byteCount = byteCount
        self.different = different.sorted().map(\.text)
    }
}
