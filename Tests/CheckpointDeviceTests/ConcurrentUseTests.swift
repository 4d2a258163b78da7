import CheckpointTesting
import Dispatch
import Glibc
import Synchronization
import Testing

@testable import CheckpointDevice

/// Many threads, and many processes that start at once.
struct ConcurrentUseTests {
    private static let threadCount = 8

    @Test func thePoolNeverGivesMoreThanItsLimit() throws {
        let directory = try TemporaryDirectory(in: "/dev/shm")
        let limit = 16 * SegmentPool.pageByteCount
        let pool = try SegmentPool(
            directory: directory.path, byteCountMax: limit,
            budget: { MemoryBudget(availableByteCount: nil) })
        let inUse = Mutex<[UInt64: Int]>([:])
        let refusals = Atomic(0)
        DispatchQueue.concurrentPerform(iterations: Self.threadCount) { thread in
            var generator = SeededGenerator(seed: UInt64(thread))
            for _ in 0..<100 {
                let counts = (0..<Int.random(in: 1...4, using: &generator)).map { _ in
                    Int.random(in: 1...(3 * SegmentPool.pageByteCount), using: &generator)
                }
                guard let segments = try? pool.acquire(byteCounts: counts) else {
                    refusals.add(1, ordering: .relaxed)
                    continue
                }
                let held = inUse.withLock { inUse in
                    for segment in segments {
                        let old = inUse.updateValue(segment.byteCount, forKey: segment.inode)
                        #expect(old == nil, "segment \(segment.path) was given twice")
                    }
                    return inUse.values.reduce(0, +)
                }
                #expect(held <= limit)
                inUse.withLock { inUse in
                    for segment in segments { inUse[segment.inode] = nil }
                }
                pool.release(segments, retains: Bool.random(using: &generator))
            }
        }
        #expect(refusals.load(ordering: .relaxed) < Self.threadCount * 100)
        #expect(pool.usage.usedByteCount == 0)
        pool.releaseRetained()
        #expect(pool.usage == .init())
        #expect(TemporaryDirectory.names(in: pool.path).isEmpty)
    }

    /// Every start sweeps: none may take the directory that another one has just made.
    @Test func startsAtTheSameTimeDoNotSweepEachOther() throws {
        let parent = try TemporaryDirectory()
        let missing = Atomic(0)
        let failed = Atomic(0)
        DispatchQueue.concurrentPerform(iterations: Self.threadCount) { _ in
            for _ in 0..<50 {
                guard let owned = try? PrivateDirectory(parent: parent.path, prefix: "ce") else {
                    failed.add(1, ordering: .relaxed)
                    continue
                }
                var status = stat()
                if unsafe stat(owned.path, &status) != 0 { missing.add(1, ordering: .relaxed) }
            }
        }
        #expect(missing.load(ordering: .relaxed) == 0)
        #expect(failed.load(ordering: .relaxed) == 0)
        #expect(parent.names.isEmpty)
    }
}
