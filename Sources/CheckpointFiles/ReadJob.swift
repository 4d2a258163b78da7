import Glibc
import Synchronization

/// The pieces of one read, shared by its threads. A thread has the files of one piece open at a time.
final class ReadJob: Sendable {
    struct Piece: Sendable {
        /// The place of its file among the copies.
        let copy: Int
        /// Where it begins in the data section.
        let offset: Int
        let byteCount: Int
    }

    private struct State {
        var doneByteCount = 0
        var failure: FilesError?
        var reported = ContinuousClock.now
    }

    private static let bufferByteCount = 1 << 20
    private static let reportInterval = Duration.milliseconds(100)

    private let copies: [ShardReader.Copy]
    let pieces: [Piece]
    private let progress: @Sendable (Int) -> Void
    private let isCancelled: @Sendable () -> Bool
    private let next = Atomic(0)
    private let state = Mutex(State())

    init(
        copies: [ShardReader.Copy], pieces: [Piece],
        progress: @escaping @Sendable (Int) -> Void, isCancelled: @escaping @Sendable () -> Bool
    ) {
        self.copies = copies
        self.pieces = pieces
        self.progress = progress
        self.isCancelled = isCancelled
    }

    /// Takes pieces until none is left or something has failed.
    func work() {
        var buffer = [UInt8](repeating: 0, count: Self.bufferByteCount)
        while state.withLock({ $0.failure == nil }) {
            let index = next.wrappingAdd(1, ordering: .relaxed).oldValue
            guard index < pieces.count else { return }
            do throws(FilesError) {
                let piece = pieces[index]
                let files = try CopyFiles(copies[piece.copy])
                try copy(piece, files, through: &buffer)
            } catch {
                state.withLock { $0.failure = $0.failure ?? error }
            }
        }
    }

    /// Throws the first failure; else reports the end.
    func finish() throws(FilesError) {
        let (failure, done) = state.withLock { ($0.failure, $0.doneByteCount) }
        if let failure { throw failure }
        progress(done)
    }

    private func copy(
        _ piece: Piece, _ files: borrowing CopyFiles, through buffer: inout [UInt8]
    ) throws(FilesError) {
        var done = 0
        while done < piece.byteCount {
            if isCancelled() {
                throw FilesError(.cancelled, files.source.path, "the read was cancelled")
            }
            let count = min(buffer.count, piece.byteCount - done)
            try files.copy(from: piece.offset + done, byteCount: count, through: &buffer)
            done += count
            report(count)
        }
    }

    private func report(_ byteCount: Int) {
        state.withLock { state in
            state.doneByteCount += byteCount
            let now = ContinuousClock.now
            guard state.reported.duration(to: now) >= Self.reportInterval else { return }
            state.reported = now
            progress(state.doneByteCount)
        }
    }
}
