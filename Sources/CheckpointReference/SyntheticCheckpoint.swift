import CheckpointJSON
import CheckpointModel
import CheckpointNative
public import CheckpointWorker
import Glibc
import Synchronization

/// A checkpoint of pseudo-random bytes, written by several threads.
public struct SyntheticCheckpoint: Sendable {
    /// Paths of the files.
    public let paths: [String]
    /// Bytes of all tensors.
    public let byteCount: Int

    /// Writes `tensors` into files of at most about `fileByteCountMax` bytes in `directory`. The bytes
    /// follow from `seed`. `progress` gets bytes done and bytes in all; the writing ends early with an
    /// error when `isCancelled` says so.
    public static func write(
        _ tensors: [ModelShapes.Tensor], to directory: String, seed: UInt64, threadCount: Int,
        fileByteCountMax: Int = 5_000_000_000,
        progress: @escaping @Sendable (Int, Int) -> Void = { _, _ in },
        isCancelled: @escaping @Sendable () -> Bool = { false }
    ) throws(WorkerError) -> SyntheticCheckpoint {
        let parts = split(tensors, fileByteCountMax)
        var files: [SyntheticFile] = []
        for (index, part) in parts.enumerated() {
            files.append(
                try SyntheticFile(
                    "\(directory)/model-\(padded(index + 1))-of-\(padded(parts.count)).safetensors",
                    part, seed: SyntheticBytes.mixed(seed ^ UInt64(index + 1) << 32)))
        }
        let job = SyntheticJob(files, seed: seed, progress: progress, isCancelled: isCancelled)
        BlockingThread.runAll("ckpt-write", count: threadCount) { _ in job.work() }
        if let failure = job.failure { throw failure }
        return SyntheticCheckpoint(paths: files.map(\.path), byteCount: job.byteCount)
    }

    /// The same off the cooperative pool; cancelling the task ends it.
    public static func make(
        _ tensors: [ModelShapes.Tensor], in directory: String, seed: UInt64, threadCount: Int,
        progress: @escaping @Sendable (Int, Int) -> Void
    ) async throws(WorkerError) -> SyntheticCheckpoint {
        let isCancelled = CancelFlag()
        let result: Result<SyntheticCheckpoint, WorkerError> = await withTaskCancellationHandler {
            do throws(WorkerError) {
                return .success(
                    try await BlockingThread.run("ckpt-write") { () throws(WorkerError) in
                        try write(
                            tensors, to: directory, seed: seed, threadCount: threadCount,
                            progress: progress, isCancelled: { isCancelled.value })
                    })
            } catch {
                return .failure(error)
            }
        } onCancel: {
            isCancelled.raise()
        }
        return try result.get()
    }

    private static func padded(_ number: Int) -> String {
        let digits = String(number)
        return String(repeating: "0", count: max(0, 5 - digits.count)) + digits
    }

    private static func split(_ tensors: [ModelShapes.Tensor], _ byteCountMax: Int)
        -> [[ModelShapes.Tensor]]
    {
        var parts: [[ModelShapes.Tensor]] = [[]]
        var used = 0
        for tensor in tensors {
            if used > 0, used + tensor.byteCount > byteCountMax {
                parts.append([])
                used = 0
            }
            parts[parts.count - 1].append(tensor)
            used += tensor.byteCount
        }
        return parts
    }
}

private final class CancelFlag: Sendable {
    private let isRaised = Atomic(false)
    var value: Bool { isRaised.load(ordering: .relaxed) }
    func raise() { isRaised.store(true, ordering: .relaxed) }
}

/// One file; header and length stand when it is made.
private final class SyntheticFile: Sendable {
    let path: String
    let seed: UInt64
    let byteCount: Int
    private let dataOffset: Int
    private let descriptor: CInt

    init(_ path: String, _ tensors: [ModelShapes.Tensor], seed: UInt64) throws(WorkerError) {
        var end = 0
        let fields = tensors.map { tensor -> (String, JSONValue) in
            let start = end
            end += tensor.byteCount
            let value = JSONObject([
                ("dtype", .string(tensor.dtype.rawValue)),
                ("shape", .array(tensor.dimensions.map(JSONValue.integer))),
                ("data_offsets", .array([.integer(start), .integer(end)])),
            ])
            return (tensor.name, .object(value))
        }
        var header = JSONValue.object(JSONObject(fields)).encoded()
        while header.count % 8 != 0 { header.append(UInt8(ascii: " ")) }
        let length = (0..<8).map { UInt8(truncatingIfNeeded: header.count >> (8 * $0)) }
        self.path = path
        self.seed = seed
        byteCount = end
        dataOffset = 8 + header.count
        // SAFETY: the bridged string lives for the call.
        descriptor = unsafe creat(path, mode_t(S_IRUSR | S_IWUSR))
        guard descriptor >= 0, ftruncate(descriptor, off_t(dataOffset + byteCount)) == 0 else {
            throw Self.failure("make", path)
        }
        let start = length + header
        // SAFETY: the elements are plain bytes.
        try unsafe write(start.span.bytes, at: 0)
    }

    deinit { if descriptor >= 0 { close(descriptor) } }

    /// Writes bytes of the data section.
    func writeData(_ bytes: RawSpan, at offset: Int) throws(WorkerError) {
        try write(bytes, at: dataOffset + offset)
    }

    private func write(_ bytes: RawSpan, at offset: Int) throws(WorkerError) {
        var done = 0
        while done < bytes.byteCount {
            // SAFETY: the length passed is that of the rest of the span, which lives for the call.
            let count = unsafe bytes.extracting(droppingFirst: done).withUnsafeBytes { rest in
                unsafe pwrite(descriptor, rest.baseAddress, rest.count, off_t(offset + done))
            }
            guard count > 0 || errno == EINTR else { throw Self.failure("write", path) }
            done += max(0, count)
        }
    }

    private static func failure(_ verb: String, _ path: String) -> WorkerError {
        WorkerError(.callFailed, "cannot \(verb) \(path): errno \(errno)")
    }
}

private enum SyntheticBytes {
    /// The output function of SplitMix64.
    static func mixed(_ value: UInt64) -> UInt64 {
        var word = value &+ 0x9E37_79B9_7F4A_7C15
        word = (word ^ word >> 30) &* 0xBF58_476D_1CE4_E5B9
        word = (word ^ word >> 27) &* 0x94D0_49BB_1331_11EB
        return word ^ word >> 31
    }
}

/// The chunks of all files. Each is one block of random words with a word of its own mixed in.
private final class SyntheticJob: Sendable {
    private static let wordCount = 1 << 19
    private static let chunkByteCount = wordCount * 8

    let byteCount: Int
    private let chunks: [(file: SyntheticFile, offset: Int)]
    private let block: [UInt64]
    private let progress: @Sendable (Int, Int) -> Void
    private let isCancelled: @Sendable () -> Bool
    private let next = Atomic(0)
    private let done = Atomic(0)
    private let firstFailure = Mutex<WorkerError?>(nil)

    var failure: WorkerError? { firstFailure.withLock { $0 } }

    init(
        _ files: [SyntheticFile], seed: UInt64, progress: @escaping @Sendable (Int, Int) -> Void,
        isCancelled: @escaping @Sendable () -> Bool
    ) {
        byteCount = files.reduce(0) { $0 + $1.byteCount }
        chunks = files.flatMap { file in
            stride(from: 0, to: file.byteCount, by: Self.chunkByteCount).map { (file, $0) }
        }
        block = (0..<UInt64(Self.wordCount)).map { SyntheticBytes.mixed(seed ^ $0 &* 0x5851_F42D) }
        self.progress = progress
        self.isCancelled = isCancelled
    }

    func work() {
        var words = block
        while failure == nil {
            let index = next.wrappingAdd(1, ordering: .relaxed).oldValue
            guard index < chunks.count else { return }
            let (file, offset) = chunks[index]
            do throws(WorkerError) {
                if isCancelled() { throw WorkerError(.cancelled, "the writing was cancelled") }
                let key = SyntheticBytes.mixed(file.seed &+ UInt64(offset))
                for place in words.indices { words[place] = block[place] ^ key }
                let count = min(Self.chunkByteCount, file.byteCount - offset)
                // SAFETY: the elements are plain integers.
                try unsafe file.writeData(words.span.bytes.extracting(first: count), at: offset)
                let total = done.wrappingAdd(count, ordering: .relaxed).newValue
                progress(total, byteCount)
            } catch {
                firstFailure.withLock { $0 = $0 ?? error }
            }
        }
    }
}
