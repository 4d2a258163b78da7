import CheckpointNative
import Glibc
import Synchronization

/// Copies the data sections of files into shared memory, many pieces at a time.
///
/// Each thread takes piece after piece and copies it through a small buffer that stays in its cache: a
/// write to a tmpfs file fills fresh pages without clearing them first, unlike a fault in a mapping.
public struct ShardReader: Sendable {
    /// One file and where its data go.
    public struct Copy: Sendable {
        let shard: ShardFile
        let destinationPath: String

        /// The data section goes to the begin of the file `destinationPath`, which is there and long enough.
        public init(shard: ShardFile, destinationPath: String) {
            self.shard = shard
            self.destinationPath = destinationPath
        }
    }

    private static let pieceByteCount = 16 << 20
    private static let threadCountMax = 64
    private let threadCount: Int

    /// Without a count: two threads a core, eight at most; disks want several requests at a time.
    public init(threadCount: Int?) {
        let cores = max(1, Int(sysconf(CInt(_SC_NPROCESSORS_ONLN))))
        self.threadCount = min(threadCount ?? min(8, cores * 2), Self.threadCountMax)
    }

    /// Copies everything, or throws the first failure after all threads have stopped. `progress` gets the
    /// bytes done so far, at most ten times a second and once in the end, from several threads, one at a time.
    public func read(
        _ copies: [Copy], progress: @escaping @Sendable (_ byteCount: Int) -> Void,
        isCancelled: @escaping @Sendable () -> Bool
    ) throws(FilesError) {
        let job = ReadJob(
            copies: copies, pieces: pieces(copies), progress: progress, isCancelled: isCancelled)
        BlockingThread.runAll(
            "ckpt-read", count: min(threadCount, max(1, job.pieces.count))
        ) { _ in job.work() }
        try job.finish()
        for copy in copies { try copy.shard.checkUnchanged() }
    }

    private func pieces(_ copies: [Copy]) -> [ReadJob.Piece] {
        copies.enumerated().flatMap { place, copy in
            stride(from: 0, to: copy.shard.dataByteCount, by: Self.pieceByteCount).map { offset in
                ReadJob.Piece(
                    copy: place, offset: offset,
                    byteCount: min(Self.pieceByteCount, copy.shard.dataByteCount - offset))
            }
        }
    }
}
