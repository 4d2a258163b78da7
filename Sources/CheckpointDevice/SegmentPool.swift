import Glibc
import Synchronization

/// Shared memory for registered checkpoints, accounted byte by byte.
///
/// Segments given back are kept for the next version of equal layout, and make room when something
/// else needs it. Memory is taken page by page as the files are written, not when they are made.
public final class SegmentPool: Sendable {
    /// What the pool holds now, in bytes.
    public struct Usage: Hashable, Sendable {
        public var usedByteCount = 0
        public var retainedByteCount = 0
    }

    private struct State {
        var usage = Usage()
        var retained: [Int: [PoolSegment]] = [:]
        var nextNumber = 0
        var roomCount = 0
    }

    public static let pageByteCount = 4096
    private let directory: PrivateDirectory
    private let byteCountMax: Int?
    private let budget: @Sendable () -> MemoryBudget
    private let table: HostTable
    private let onDrop: @Sendable (_ paths: [String]) -> Void
    private let state = Mutex(State())

    /// Makes the pool's private directory in `directory`, a path on a tmpfs. `byteCountMax` limits
    /// used and retained bytes together; `budget` tells what the machine has.
    /// `onDrop` is told the paths of segments that were removed, so that whoever has them mapped lets go.
    public init(
        directory: String, byteCountMax: Int?, table: HostTable = .system,
        budget: @escaping @Sendable () -> MemoryBudget = MemoryBudget.current,
        onDrop: @escaping @Sendable (_ paths: [String]) -> Void = { _ in }
    ) throws(DeviceError) {
        self.directory = try PrivateDirectory(
            parent: directory, prefix: PoolNames.prefix, table: table)
        self.byteCountMax = byteCountMax
        self.budget = budget
        self.table = table
        self.onDrop = onDrop
    }

    public var path: String { directory.path }
    public var usage: Usage { state.withLock { $0.usage } }
    /// How often retained segments were removed to make room. Whoever has them mapped may still hold their memory.
    public var roomCount: Int { state.withLock { $0.roomCount } }

    /// Gives one segment for each count, at least that long; retained ones of the same length first.
    ///
    /// Throws `insufficientMemory` before anything is made when the bytes do not fit; then all that
    /// was retained before is still there unless it had to make room.
    public func acquire(byteCounts: [Int]) throws(DeviceError) -> [PoolSegment] {
        let lengths = try byteCounts.map { count throws(DeviceError) in try Self.pages(count) }
        let total = try Self.sum(lengths)
        let result: Result<[PoolSegment], DeviceError> = state.withLock { state in
            Result { () throws(DeviceError) in try acquire(lengths, total: total, in: &state) }
        }
        return try result.get()
    }

    /// Takes segments back: kept for the next version, or removed at once.
    public func release(_ segments: [PoolSegment], retains: Bool) {
        state.withLock { state in
            for segment in segments {
                state.usage.usedByteCount -= segment.byteCount
                guard retains else { continue }
                state.usage.retainedByteCount += segment.byteCount
                state.retained[segment.byteCount, default: []].append(segment)
            }
        }
        if !retains, !segments.isEmpty { onDrop(segments.map(\.path)) }
    }

    /// Removes what is retained.
    public func releaseRetained() {
        state.withLock { state in dropRetained(&state) }
    }

    /// Removes the directory and all files in it, used ones too.
    public func close() {
        releaseRetained()
        directory.remove()
    }

    static func pages(_ byteCount: Int) throws(DeviceError) -> Int {
        let (sum, overflow) = max(byteCount, 1).addingReportingOverflow(pageByteCount - 1)
        guard byteCount >= 0, !overflow else {
            throw DeviceError(.insufficientMemory, "a segment of \(byteCount) bytes is impossible")
        }
        return sum / pageByteCount * pageByteCount
    }

    private static func sum(_ lengths: [Int]) throws(DeviceError) -> Int {
        var total = 0
        for length in lengths {
            let (sum, overflow) = total.addingReportingOverflow(length)
            guard !overflow else {
                throw DeviceError(
                    .insufficientMemory,
                    "\(lengths.count) segments of more than \(Int.max) bytes together are impossible"
                )
            }
            total = sum
        }
        return total
    }
}

extension SegmentPool {
    /// Runs under the lock: no other call may see the pool between the check and the taking.
    private func acquire(_ lengths: [Int], total: Int, in state: inout State)
        throws(DeviceError) -> [PoolSegment]
    {
        var taken: [PoolSegment?] = lengths.map { length in
            guard let segment = state.retained[length]?.popLast() else { return nil }
            state.usage.retainedByteCount -= segment.byteCount
            return segment
        }
        let reused = taken.compactMap(\.self)
        let reusedByteCount = reused.reduce(0) { $0 + $1.byteCount }
        do {
            try makeRoom(
                for: total - reusedByteCount, beside: state.usage.usedByteCount + reusedByteCount,
                &state)
            for (index, length) in lengths.enumerated() where taken[index] == nil {
                taken[index] = try makeSegment(length, number: state.nextNumber)
                state.nextNumber += 1
            }
        } catch {
            // Segments that were made by this call go with `taken`.
            retain(reused, in: &state)
            throw error
        }
        state.usage.usedByteCount += total
        return taken.compactMap(\.self)
    }

    private func dropRetained(_ state: inout State) {
        let paths = state.retained.values.flatMap { $0.map(\.path) }
        state.retained = [:]
        state.usage.retainedByteCount = 0
        if !paths.isEmpty { onDrop(paths) }
    }

    private func retain(_ segments: [PoolSegment], in state: inout State) {
        for segment in segments {
            state.usage.retainedByteCount += segment.byteCount
            state.retained[segment.byteCount, default: []].append(segment)
        }
    }

    /// Checks that `byteCount` new bytes fit beside those in use; drops retained ones where that helps.
    private func makeRoom(for byteCount: Int, beside used: Int, _ state: inout State)
        throws(DeviceError)
    {
        if byteCount <= 0 { return }
        if let shortage = try shortage(of: byteCount, beside: used, &state) {
            guard state.usage.retainedByteCount > 0 else { throw shortage }
            state.roomCount += 1
            dropRetained(&state)
            if let shortage = try self.shortage(of: byteCount, beside: used, &state) {
                throw shortage
            }
        }
    }

    private func shortage(of byteCount: Int, beside used: Int, _ state: inout State)
        throws(DeviceError) -> DeviceError?
    {
        let held = used + state.usage.retainedByteCount
        if let byteCountMax, byteCount > byteCountMax - held {
            return Self.shortage(
                byteCount, free: max(0, byteCountMax - held),
                of: "the memory limit of \(byteCountMax) bytes",
                remedy: "raise --memory-limit or unregister a checkpoint")
        }
        let free = try table.freeByteCount(at: directory.path)
        if byteCount > free {
            return Self.shortage(
                byteCount, free: free, of: "the file system of \(directory.path)",
                remedy: "mount a larger tmpfs or unregister a checkpoint")
        }
        let budget = budget()
        if let available = budget.availableByteCount, byteCount > available {
            return Self.shortage(
                byteCount, free: available, of: budget.source.description,
                remedy: budget.source == .machine
                    ? "free memory or unregister a checkpoint"
                    : "raise that limit, of the container or the service, or unregister a checkpoint"
            )
        }
        return nil
    }

    private static func shortage(_ byteCount: Int, free: Int, of what: String, remedy: String)
        -> DeviceError
    {
        DeviceError(
            .insufficientMemory,
            "the checkpoint needs \(byteCount) bytes of shared memory, but \(what) has "
                + "\(free) left; \(remedy)")
    }

    private func makeSegment(_ byteCount: Int, number: Int) throws(DeviceError) -> PoolSegment {
        let path = "\(directory.path)/segment-\(number)"
        let descriptor = try table.openFile(
            path, flags: O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, mode: 0o600)
        defer { _ = table.close(descriptor) }
        do {
            try table.setLength(descriptor, to: byteCount, path: path)
            let status = try table.fileStatus(descriptor, path: path)
            return PoolSegment(
                path: path, byteCount: byteCount, inode: UInt64(status.st_ino), table: table)
        } catch {
            try? table.removeFile(path)
            throw error
        }
    }
}
