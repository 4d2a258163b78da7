public import CheckpointModel
import CheckpointNative
import Glibc
import Synchronization

/// The files of a checkpoint, mapped: what the parameters of a worker have to equal.
public struct ReferenceFiles: Sendable {
    let files: [MappedFile]
    let places: [ExactString: (file: Int, offset: Int)]

    /// `places` tells the file of each tensor by its name, and where its first byte lies in it.
    public init(_ files: [MappedFile], places: [ExactString: (file: Int, offset: Int)]) {
        self.files = files
        self.places = places
    }
}

/// Compares every byte that a target holds with the files of a checkpoint, on several threads.
public struct ReferenceComparison: Sendable {
    /// Bytes that were compared.
    public let byteCount: Int
    /// Names of tensors with a byte that differs, or that only one side has; sorted.
    public let different: [String]

    /// Compares `target` with `files` on `threadCount` threads, `chunkByteCount` bytes at a time.
    public init(
        _ target: any ReferenceTarget, _ files: ReferenceFiles, threadCount: Int,
        chunkByteCount: Int = 16 << 20
    ) throws(WorkerError) {
        guard let layout = target.layout else {
            throw WorkerError(.invalidArgument, "the worker holds no weights yet")
        }
        let known = Set(layout.tensors.map { ExactString($0.name) })
        let alone = known.symmetricDifference(files.places.keys)
        let job = ComparisonJob(layout, files, chunkByteCount)
        let readers = try target.readers(min(threadCount, max(1, job.chunkCount)))
        BlockingThread.runAll("ckpt-compare", count: readers.count) { job.work(readers[$0]) }
        let result = job.result.withLock { $0 }
        if let failure = result.failure { throw failure }
        byteCount = result.byteCount
        different = result.different.union(alone).sorted().map(\.text)
    }
}

/// The chunks of the parameters, compared by several threads.
private final class ComparisonJob: Sendable {
    struct Result {
        var byteCount = 0
        var different: Set<ExactString> = []
        var failure: WorkerError?
    }

    let result = Mutex(Result())
    private let layout: ReferenceLayout
    private let files: ReferenceFiles
    private let chunkByteCount: Int
    private let next = Atomic(0)

    var chunkCount: Int { (layout.byteCount + chunkByteCount - 1) / chunkByteCount }

    init(_ layout: ReferenceLayout, _ files: ReferenceFiles, _ chunkByteCount: Int) {
        self.layout = layout
        self.files = files
        self.chunkByteCount = chunkByteCount
    }

    func work(_ reader: any ReferenceReader) {
        while result.withLock({ $0.failure == nil }) {
            let chunk = next.wrappingAdd(1, ordering: .relaxed).oldValue
            guard chunk < chunkCount else { return }
            let start = chunk * chunkByteCount
            let range = start..<min(start + chunkByteCount, layout.byteCount)
            do throws(WorkerError) {
                try reader.read(at: start, byteCount: range.count) { compare($0, range) }
            } catch {
                result.withLock { $0.failure = $0.failure ?? error }
            }
        }
    }

    private func compare(_ bytes: Span<UInt8>, _ range: Range<Int>) {
        var byteCount = 0
        var different: Set<ExactString> = []
        for place in layout.place(at: range.lowerBound)..<layout.offsets.count {
            let offset = layout.offsets[place]
            guard offset < range.upperBound else { break }
            let name = ExactString(layout.tensors[place].name)
            let end = offset + layout.slices[place].byteCount
            let first = max(range.lowerBound, offset)
            let part = (first - offset)..<(min(range.upperBound, end) - offset)
            byteCount += part.count
            guard let (file, start) = files.places[name] else { continue }
            let isEqual = files.files[file].withBytes { content in
                Self.equal(
                    bytes, at: first - range.lowerBound, part,
                    of: layout.slices[place], content, at: start)
            }
            if !isEqual { different.insert(name) }
        }
        result.withLock {
            $0.byteCount += byteCount
            $0.different.formUnion(different)
        }
    }

    /// Whether the bytes `part` of the packed `slice`, found from `first` on, are those of the tensor
    /// that begins at `start` of a file.
    private static func equal(
        _ bytes: Span<UInt8>, at first: Int, _ part: Range<Int>, of slice: TensorSlice,
        _ file: Span<UInt8>, at start: Int
    ) -> Bool {
        var done = part.lowerBound
        while done < part.upperBound {
            let (row, column) = done.quotientAndRemainder(dividingBy: slice.rowByteCount)
            let count = min(slice.rowByteCount - column, part.upperBound - done)
            let origin = start + slice.offset + row * slice.rowStride + column
            let place = first + done - part.lowerBound
            guard origin + count <= file.count else { return false }
            let there = file.extracting(origin..<(origin + count))
            let here = bytes.extracting(place..<(place + count))
            let isEqual = unsafe there.withUnsafeBytes { there in
                unsafe here.withUnsafeBytes { here in
                    guard let left = here.baseAddress, let right = there.baseAddress else {
                        return false
                    }
                    // SAFETY: both spans have `count` bytes.
                    return unsafe memcmp(left, right, count) == 0
                }
            }
            guard isEqual else { return false }
            done += count
        }
        return true
    }
}
