import CNative
import CheckpointModel
import Glibc

/// The parameters of a reference worker: its slice of every tensor, packed in one mapped file.
public final class ReferenceMemory {
    private let path: String
    private let rank: Int
    private let worldSize: Int
    private var target: MappedFile?
    private var catalog: CatalogMessage?
    /// The mapped segments of the running update, in the catalog's order.
    private var sources: [MappedFile] = []
    /// Segments that stay mapped for the next update: to map them anew costs a page fault for each 64 KiB.
    private var kept: [SegmentLocation: MappedFile] = [:]
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
        var mapped: [SegmentLocation: MappedFile] = [:]
        for segment in catalog.segments {
            let file: MappedFile
            if let known = kept[segment], isCurrent(segment) {
                file = known
            } else {
                file = try map(segment)
            }
            mapped[segment] = file
            sources.append(file)
        }
        kept = mapped
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
                unsafe ce_copy_streaming(
                    to + row * slice.rowByteCount, from + row * slice.rowStride,
                    slice.rowByteCount)
            }
        }
        return byteCount
    }

    /// Ends the use of the server's memory. Its segments stay mapped until ``dropStale()`` finds that
    /// their files are gone.
    func release() { sources = [] }

    /// Unmaps everything, after a failure.
    func drop() {
        sources = []
        kept = [:]
    }

    /// Unmaps the segments whose paths no longer name them, so that their memory is free. To be called
    /// every second or so between updates.
    public func dropStale() {
        for segment in kept.keys where !isCurrent(segment) { kept[segment] = nil }
    }

    private func map(_ segment: SegmentLocation) throws(WorkerError) -> MappedFile {
        try MappedFile(
            reading: segment.path, inode: segment.inode, byteCount: segment.fileByteCount)
    }

    private func isCurrent(_ segment: SegmentLocation) -> Bool {
        var status = stat()
        // SAFETY: the bridged string and `status` live for the call.
        return unsafe lstat(segment.path, &status) == 0 && segment.inode == status.st_ino
            && segment.fileByteCount == Int(status.st_size)
    }
}
