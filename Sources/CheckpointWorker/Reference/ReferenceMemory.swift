import CheckpointModel
import Glibc

/// The parameters of a reference worker: its slice of every tensor, packed in one mapped file.
public final class ReferenceMemory {
    private let path: String
    private let rank: Int
    private let worldSize: Int
    private var target: MappedFile?
    private var catalog: CatalogMessage?
    private var sources: [MappedFile] = []
    private var slices: [TensorSlice] = []
    private var offsets: [Int] = []

    /// Keeps the parameters in the file `path`, which is made anew when the layout changes.
    public init(path: String, rank: Int, worldSize: Int) {
        self.path = path
        self.rank = rank
        self.worldSize = worldSize
    }

    /// Maps the segments and lays out the parameters.
    func open(_ catalog: CatalogMessage) throws(WorkerError) {
        sources = []
        for segment in catalog.segments {
            sources.append(
                try MappedFile(
                    reading: segment.path, inode: segment.inode, byteCount: segment.fileByteCount))
        }
        slices = catalog.tensors.map { TensorSlice($0, rank: rank, worldSize: worldSize) }
        offsets = Self.offsets(of: slices)
        let byteCount = slices.reduce(0) { $0 + $1.byteCount }
        if target?.byteCount != byteCount {
            target = try MappedFile(creating: path, byteCount: byteCount)
        }
        self.catalog = catalog
    }

    /// Where each packed slice begins.
    public static func offsets(of slices: [TensorSlice]) -> [Int] {
        var offset = 0
        return slices.map { slice in
            defer { offset += slice.byteCount }
            return offset
        }
    }

    /// Copies the slices of the given tensors; returns the bytes of the whole tensors.
    func load(_ range: Range<Int>) -> Int {
        guard let catalog, let target else { return 0 }
        var byteCount = 0
        for place in range {
            let tensor = catalog.tensors[place]
            byteCount += tensor.range.byteCount
            let slice = slices[place]
            let dataOffset = catalog.segments[tensor.shard].dataOffset
            // SAFETY: the decoded catalog guarantees that the tensor lies inside its segment, whose
            // length was checked when it was mapped; `open` sized the target for all slices.
            let from =
                unsafe sources[tensor.shard].address
                + (dataOffset + tensor.range.offset + slice.offset)
            let to = unsafe target.address + offsets[place]
            for row in 0..<slice.rowCount {
                unsafe memcpy(
                    to + row * slice.rowByteCount, from + row * slice.rowStride,
                    slice.rowByteCount)
            }
        }
        return byteCount
    }

    /// Lets go of the server's memory.
    func release() { sources = [] }
}
