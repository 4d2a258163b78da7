import Glibc
import Synchronization

/// The pieces of one read, shared by its threads.
final class ReadJob: Sendable {
    struct Piece: Sendable {
        let file: OpenFile
        let sourceOffset: Int
        let destination: CInt
        let destinationOffset: Int
        let byteCount: Int
    }

    private struct State {
        var doneByteCount = 0
        var failure: FilesError?
        var reported = ContinuousClock.now
    }

    private static let bufferByteCount = 1 << 20
    private static let reportInterval = Duration.milliseconds(100)

    let pieces: [Piece]
    private let progress: @Sendable (Int) -> Void
    private let isCancelled: @Sendable () -> Bool
    private let next = Atomic(0)
    private let state = Mutex(State())

    init(
        pieces: [Piece], progress: @escaping @Sendable (Int) -> Void,
        isCancelled: @escaping @Sendable () -> Bool
    ) {
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
                try copy(pieces[index], through: &buffer)
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

    private func copy(_ piece: Piece, through buffer: inout [UInt8]) throws(FilesError) {
        var done = 0
        while done < piece.byteCount {
            if isCancelled() {
                throw FilesError(.cancelled, piece.file.path, "the read was cancelled")
            }
            let count = min(buffer.count, piece.byteCount - done)
            try read(piece, at: done, byteCount: count, into: &buffer)
            try write(piece, at: done, byteCount: count, from: buffer)
            done += count
            report(count)
        }
    }

    private func read(_ piece: Piece, at done: Int, byteCount: Int, into buffer: inout [UInt8])
        throws(FilesError)
    {
        var filled = 0
        while filled < byteCount {
            // SAFETY: `filled ..< byteCount` lies inside the buffer, which lives for the call.
            let count = unsafe buffer.withUnsafeMutableBytes { bytes in
                unsafe pread(
                    piece.file.descriptor, bytes.baseAddress.map { unsafe $0 + filled },
                    byteCount - filled, off_t(piece.sourceOffset + done + filled))
            }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else {
                throw FilesError(
                    .inputOutput, piece.file.path,
                    "it cannot be read at byte \(piece.sourceOffset + done + filled)",
                    cause: count == 0 ? "the file ends" : FileIdentity.text(errno))
            }
            filled += count
        }
    }

    private func write(_ piece: Piece, at done: Int, byteCount: Int, from buffer: [UInt8])
        throws(FilesError)
    {
        var written = 0
        while written < byteCount {
            // SAFETY: `written ..< byteCount` lies inside the buffer, which lives for the call.
            let count = unsafe buffer.withUnsafeBytes { bytes in
                unsafe pwrite(
                    piece.destination, bytes.baseAddress.map { unsafe $0 + written },
                    byteCount - written, off_t(piece.destinationOffset + done + written))
            }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else {
                throw FilesError(
                    .inputOutput, piece.file.path, "its copy in shared memory cannot be written",
                    cause: FileIdentity.text(errno))
            }
            written += count
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
