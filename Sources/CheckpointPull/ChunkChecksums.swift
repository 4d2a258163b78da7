import CheckpointNative
public import CheckpointPlan
import Glibc

/// The CRC-32C of every chunk of a checkpoint: computed once, or taken from the source that it was read from.
///
/// They are computed when somebody asks, or ahead of that in the time that nobody else needs.
public final class ChunkChecksums: Sendable {
    private struct State {
        var values: [UInt32]
        var isKnown: [Bool]
        var knownCount = 0
        /// Over those that are known.
        var content = ContentDigest()
        /// Which chunks are computed, or taken by a thread.
        var isTaken: [Bool]
        /// Where the next thread looks for chunks first: those that are asked for go before the others.
        var next = 0
        var isComputing = false
        var isComputingAhead = false
        var isClosed = false
        /// Why they cannot be computed.
        var failure: PullError?

        mutating func note(_ chunk: Int, _ value: UInt32) {
            if isKnown[chunk] { content.remove(chunk, values[chunk]) } else { knownCount += 1 }
            content.add(chunk, value)
            values[chunk] = value
            isKnown[chunk] = true
        }
    }

    /// Chunks that a thread takes at once.
    private static let runCount = 16
    public static let threadCount = 2

    public let grid: ChunkGrid
    private let shards: [StoredShard]
    private let state: BlockingState<State>

    /// Those of chunks in memory, which are computed when they are asked for first. Without `shards` all values
    /// are noted by ``note(_:_:)``.
    public init(grid: ChunkGrid, shards: [StoredShard] = []) {
        self.grid = grid
        self.shards = shards
        state = BlockingState(
            State(
                values: [UInt32](repeating: 0, count: grid.count),
                isKnown: [Bool](repeating: false, count: grid.count),
                isTaken: [Bool](repeating: false, count: grid.count)))
    }

    /// Keeps what a chunk was found to have.
    public func note(_ chunk: Int, _ value: UInt32) {
        state.update { $0.note(chunk, value) }
    }

    /// The digest of the bytes; `nil` until all checksums are known.
    public var content: String? {
        state.update { $0.knownCount == grid.count ? $0.content.text : nil }
    }

    /// What a chunk has, where that is known by now.
    public func known(_ chunk: Int) -> UInt32? {
        state.update { $0.isKnown[chunk] ? $0.values[chunk] : nil }
    }

    /// The values of adjacent chunks; waits until they are known, at most until `deadline`. `nil` when that
    /// passed, or after ``close()``. Throws where a file is not the one any more that was registered.
    public func values(_ chunks: Range<Int>, deadline: ContinuousClock.Instant)
        async throws(PullError) -> [UInt32]?
    {
        state.update { state in
            if let first = chunks.first(where: { !state.isTaken[$0] }) { state.next = first }
            // What the system did not have then it may have now.
            if state.failure?.code == .system { state.failure = nil }
        }
        startComputing()
        while ContinuousClock.now < deadline {
            let found: Result<[UInt32]?, PullError>? = state.update { state in
                if state.isClosed { return .success(nil) }
                if chunks.allSatisfy({ state.isKnown[$0] }) {
                    return .success(Array(state.values[chunks]))
                }
                return state.failure.map { .failure($0) }
            }
            if let found { return try found.get() }
            do { try await Task.sleep(for: .milliseconds(5)) } catch { return nil }
        }
        return nil
    }

    /// Begins to compute all of them on a thread of the lowest priority, which rests while `isBusy`.
    public func computeAhead(isBusy: @escaping @Sendable () -> Bool) {
        guard !shards.isEmpty else { return }
        let starts = state.update { state in
            defer { state.isComputingAhead = true }
            return !state.isComputing && !state.isComputingAhead
        }
        guard starts else { return }
        Task {
            do throws(SystemShortage) {
                try await BlockingThread.run("ckpt-checksum", givesWay: true) {
                    [self] () throws(SystemShortage) in
                    compute { [self] in
                        while isBusy(), state.update({ !$0.isComputing && !$0.isClosed }) {
                            usleep(Self.restMicroseconds)
                        }
                    }
                }
            } catch {
                // They are computed when somebody asks for them.
                state.update { $0.isComputingAhead = false }
            }
        }
    }

    private static let restMicroseconds: UInt32 = 10_000

    /// Ends what is computed; nothing waits any longer.
    public func close() { state.update { $0.isClosed = true } }

    private func startComputing() {
        guard !shards.isEmpty else { return }
        let starts = state.update { state in
            defer { state.isComputing = true }
            return !state.isComputing && state.failure == nil
        }
        guard starts else { return }
        Task {
            await BlockingThread.run("ckpt-checksum") { [self] in
                BlockingThread.runAll("ckpt-checksum", count: Self.threadCount) { [self] _ in
                    compute {}
                }
            }
        }
    }

    /// Computes runs of chunks until none is left or one cannot be read, each after `pause`.
    private func compute(pause: () -> Void) {
        var buffer = [UInt8](repeating: 0, count: StoredShard.bufferByteCount)
        while true {
            pause()
            let run: Range<Int> = state.update { state in
                guard !state.isClosed, state.failure == nil,
                    let start = state.isTaken[state.next...].firstIndex(of: false)
                        ?? state.isTaken.firstIndex(of: false)
                else { return 0..<0 }
                var end = start
                while end < min(start + Self.runCount, grid.count), !state.isTaken[end] {
                    state.isTaken[end] = true
                    end += 1
                }
                state.next = end
                return start..<end
            }
            if run.isEmpty { return }
            do throws(PullError) {
                let values = try values(run, through: &buffer)
                state.update { state in
                    for (chunk, value) in zip(run, values) { state.note(chunk, value) }
                }
            } catch {
                state.update { state in
                    state.failure = state.failure ?? error
                    for chunk in run { state.isTaken[chunk] = false }
                    state.isComputing = false
                }
                return
            }
        }
    }

    private func values(_ run: Range<Int>, through buffer: inout [UInt8]) throws(PullError)
        -> [UInt32]
    {
        var values: [UInt32] = []
        var chunk = run.lowerBound
        while chunk < run.upperBound {
            let shard = grid.shard(of: chunk)
            let end = min(run.upperBound, grid.chunks(of: shard).upperBound)
            values += try shards[shard].checksums(
                of: (chunk..<end).map { grid.range(of: $0).range }, through: &buffer)
            chunk = end
        }
        return values
    }
}
