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
        /// Which chunks are computed, or taken by a thread.
        var isTaken: [Bool]
        /// Where the next thread looks for chunks first: those that are asked for go before the others.
        var next = 0
        var isComputing = false
        var isComputingAhead = false
        var isClosed = false
    }

    /// Chunks that a thread takes at once.
    private static let runCount = 16
    public static let threadCount = 2

    public let grid: ChunkGrid
    private let shards: [MappedShard]
    private let state: BlockingState<State>

    /// Those of chunks in memory, which are computed when they are asked for first. Without `shards` all values
    /// are noted by ``note(_:_:)``.
    public init(grid: ChunkGrid, shards: [MappedShard] = []) {
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
        state.update { state in
            state.values[chunk] = value
            state.isKnown[chunk] = true
        }
    }

    /// What a chunk has, where that is known by now.
    public func known(_ chunk: Int) -> UInt32? {
        state.update { $0.isKnown[chunk] ? $0.values[chunk] : nil }
    }

    /// The values of adjacent chunks; waits until they are known, at most until `deadline`. `nil` when that
    /// passed, or after ``close()``.
    public func values(_ chunks: Range<Int>, deadline: ContinuousClock.Instant) async -> [UInt32]? {
        state.update { state in
            if let first = chunks.first(where: { !state.isTaken[$0] }) { state.next = first }
        }
        startComputing()
        while ContinuousClock.now < deadline {
            let found: [UInt32]?? = state.update { state in
                if state.isClosed { return .some(nil) }
                return chunks.allSatisfy { state.isKnown[$0] }
                    ? .some(Array(state.values[chunks])) : nil
            }
            if let found { return found }
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
            await BlockingThread.run("ckpt-checksum") { [self] in
                BlockingThread.becomeLowPriority()
                compute { [self] in
                    while isBusy(), state.update({ !$0.isComputing && !$0.isClosed }) {
                        usleep(Self.restMicroseconds)
                    }
                }
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
            return !state.isComputing
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

    /// Computes runs of chunks until none is left, each after `pause`.
    private func compute(pause: () -> Void) {
        while true {
            pause()
            let run: Range<Int> = state.update { state in
                guard !state.isClosed,
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
            let values = run.map { chunk in
                let place = grid.range(of: chunk)
                return shards[place.shard].checksum(of: place.range)
            }
            state.update { state in
                for (chunk, value) in zip(run, values) {
                    state.values[chunk] = value
                    state.isKnown[chunk] = true
                }
            }
        }
    }
}
