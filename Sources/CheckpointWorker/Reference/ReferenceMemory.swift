import CNative
import CheckpointModel
import Glibc

/// The parameters of a reference worker on the host, packed in one mapped file.
public final class ReferenceMemory: ReferenceTarget {
    public let source = MemoryKind.host
    public private(set) var layout: ReferenceLayout?
    private let path: String
    private let rank: Int
    private let worldSize: Int
    private var target: MappedFile?
    private var segments: [SegmentLocation] = []
    /// The mapped segments of the running update, in the catalog's order.
    private var sources: [MappedFile] = []
    /// Segments that stay mapped for the next update: to map them anew costs a page fault for each 64 KiB.
    private var kept: [SegmentLocation: MappedFile] = [:]

    /// Keeps the parameters in the file `path`, which is made anew when the layout changes.
    public init(path: String, rank: Int, worldSize: Int) {
        self.path = path
        self.rank = rank
        self.worldSize = worldSize
    }

    public func open(_ catalog: CatalogMessage) throws(WorkerError) {
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
        segments = catalog.segments
        let layout = ReferenceLayout(catalog.tensors, rank: rank, worldSize: worldSize)
        if target?.byteCount != layout.byteCount {
            target = try MappedFile(creating: path, byteCount: layout.byteCount)
        }
        self.layout = layout
    }

    public func load(_ range: Range<Int>) throws(WorkerError) -> Int {
        guard let layout, let target, sources.count == segments.count else {
            throw WorkerError(.protocolViolation, "a bucket came before the catalog")
        }
        try layout.check(range)
        try checkSegments(Set(range.map { layout.tensors[$0].shard }))
        for place in range {
            let tensor = layout.tensors[place]
            let slice = layout.slices[place]
            let dataOffset = segments[tensor.shard].dataOffset
            // SAFETY: the decoded catalog guarantees that the tensor lies inside its segment, whose
            // length was checked when it was mapped; `open` sized the target for all slices.
            let from =
                unsafe sources[tensor.shard].address
                + (dataOffset + tensor.range.offset + slice.offset)
            let to = unsafe target.address + layout.offsets[place]
            for row in 0..<slice.rowCount {
                unsafe ce_copy_streaming(
                    to + row * slice.rowByteCount, from + row * slice.rowStride,
                    slice.rowByteCount)
            }
        }
        return layout.byteCount(of: range)
    }

    /// Its segments stay mapped until ``dropStale()`` finds that their files are gone.
    public func release() { sources = [] }

    public func drop() {
        sources = []
        kept = [:]
    }

    /// Unmaps the segments whose paths no longer name them, so that their memory is free.
    public func dropStale() {
        for segment in kept.keys where !isCurrent(segment) { kept[segment] = nil }
    }

    public func fill(_ byte: UInt8) throws(WorkerError) {
        guard let target else { return }
        // SAFETY: the mapping has so many bytes and is written to by this thread only.
        unsafe memset(target.address, CInt(byte), target.byteCount)
    }

    public func readers(_ count: Int) throws(WorkerError) -> [any ReferenceReader] {
        guard let target else { return [] }
        return Array(repeating: MappedReader(file: target), count: count)
    }

    private func map(_ segment: SegmentLocation) throws(WorkerError) -> MappedFile {
        try MappedFile(
            reading: segment.path, inode: segment.inode, byteCount: segment.fileByteCount)
    }

    /// A page that a file has lost would end this process without a word.
    private func checkSegments(_ shards: Set<Int>) throws(WorkerError) {
        for shard in shards where !isCurrent(segments[shard]) {
            throw WorkerError(
                .callFailed,
                "\(segments[shard].path) was replaced or has become shorter since the update began; "
                    + "write the next version beside files that are in use, not over them")
        }
    }

    private func isCurrent(_ segment: SegmentLocation) -> Bool {
        var status = stat()
        // SAFETY: the bridged string and `status` live for the call.
        return unsafe lstat(segment.path, &status) == 0 && segment.inode == status.st_ino
            && segment.fileByteCount == Int(status.st_size)
    }
}

/// Reads where the bytes lie.
private struct MappedReader: ReferenceReader {
    let file: MappedFile

    func read(at offset: Int, byteCount: Int, _ body: (Span<UInt8>) -> Void) throws(WorkerError) {
        file.withBytes { body($0.extracting(offset..<(offset + byteCount))) }
    }
}
