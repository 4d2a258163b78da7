import CheckpointTesting
import Glibc
import Testing

@testable import CheckpointDevice

/// The pool when system calls fail: the caller is told, and nothing stays behind.
struct HostFaultTests {
    private let directory: TemporaryDirectory

    init() throws { directory = try TemporaryDirectory(in: "/dev/shm") }

    private func pool(_ table: HostTable, limit: Int? = nil) throws -> SegmentPool {
        try SegmentPool(
            directory: directory.path, byteCountMax: limit, table: table,
            budget: { MemoryBudget(availableByteCount: nil) })
    }

    /// What a daemon does with the pool: two versions, the second one of another layout.
    private func scenario(_ table: HostTable) throws {
        let pool = try pool(table)
        let first = try pool.acquire(byteCounts: [5000, 100, 100])
        pool.release(first, retains: true)
        let second = try pool.acquire(byteCounts: [5000, 9000])
        pool.release(second, retains: false)
        pool.close()
    }

    @Test func withoutAFaultEveryCallIsMadeAndNothingStays() {
        let (report, error) = FaultyHostTable.with { try scenario($0) }
        #expect(error == nil)
        #expect(report.isClean, "\(report)")
        #expect(Set(report.counts.keys) == Set(FaultyHostTable.Call.allCases))
        #expect(directory.names.isEmpty)
    }

    @Test(arguments: FaultyHostTable.Call.allCases)
    func whicheverCallFailsNothingStays(_ call: FaultyHostTable.Call) {
        let (clean, _) = FaultyHostTable.with { try scenario($0) }
        let count = clean.counts[call, default: 0]
        #expect(count > 0)
        for occurrence in 1...max(1, count) {
            let (report, error) = FaultyHostTable.with(.init(call, occurrence: occurrence)) {
                try scenario($0)
            }
            #expect(report.isClean, "\(call) \(occurrence): \(report)")
            #expect(directory.names.isEmpty, "\(call) \(occurrence)")
            if let error { #expect(error is DeviceError, "\(call) \(occurrence)") }
        }
    }

    @Test(arguments: [FaultyHostTable.Call.open, .truncate, .makeDirectory, .status, .space])
    func aCallThatKeepsFailingIsTold(_ call: FaultyHostTable.Call) throws {
        let (report, error) = FaultyHostTable.with(
            .init(call, errorNumber: EMFILE, isLasting: true)
        ) { try scenario($0) }
        let failure = try #require(error as? DeviceError)
        #expect(failure.errorNumber == EMFILE)
        #expect(failure.description.contains("Too many open files, errno \(EMFILE)"))
        #expect(failure.description.contains(directory.path))
        #expect(report.isClean, "\(report)")
    }

    @Test(arguments: [FaultyHostTable.Call.open, .truncate, .lock])
    func anInterruptedCallIsRepeated(_ call: FaultyHostTable.Call) {
        let (report, error) = FaultyHostTable.with(.init(call, errorNumber: EINTR)) {
            try scenario($0)
        }
        #expect(error == nil)
        #expect(report.isClean)
    }

    @Test func afterAFailedRequestThePoolIsAsBefore() {
        let (_, error) = FaultyHostTable.with(.init(.truncate, occurrence: 4)) { table in
            let pool = try pool(table)
            let kept = try pool.acquire(byteCounts: [4096, 8192])
            let inodes = Set(kept.map(\.inode))
            pool.release(kept, retains: true)
            let usage = pool.usage
            let files = FaultyHostTable.report.files
            // One is reused, one is made, the next one fails.
            let failure = #expect(throws: DeviceError.self) {
                try pool.acquire(byteCounts: [4096, 12288, 16384])
            }
            #expect(failure?.call == "ftruncate")
            #expect(pool.usage == usage)
            #expect(FaultyHostTable.report.files == files)
            let again = try pool.acquire(byteCounts: [4096, 8192, 12288])
            #expect(Set(again.map(\.inode)).isSuperset(of: inodes))
        }
        #expect(error == nil)
    }

    @Test func aFullFileSystemIsToldWithNumbersBeforeAnythingIsMade() {
        let (_, error) = FaultyHostTable.with(freeByteCount: 10_000) { table in
            let pool = try pool(table)
            let opened = FaultyHostTable.report.counts[.open]
            let failure = #expect(throws: DeviceError.self) {
                try pool.acquire(byteCounts: [4096, 8192])
            }
            #expect(failure?.code == .insufficientMemory)
            for part in ["12288 bytes", "10000 left", "file system of \(pool.path)"] {
                #expect(failure?.message.contains(part) == true, "\(part)")
            }
            #expect(FaultyHostTable.report.counts[.open] == opened)
            #expect(FaultyHostTable.report.files.isEmpty)
            #expect(try pool.acquire(byteCounts: [8192]).count == 1)
        }
        #expect(error == nil)
    }

    @Test func aFileSystemThatFillsUpMeanwhileIsAShortageOfMemory() {
        let (report, error) = FaultyHostTable.with(.init(.truncate, errorNumber: ENOSPC)) {
            _ = try pool($0).acquire(byteCounts: [4096])
        }
        #expect((error as? DeviceError)?.code == .insufficientMemory)
        #expect(report.isClean)
    }

    @Test func aDirectoryThatASweepHasLockedIsLeftToIt() throws {
        let (_, error) = FaultyHostTable.with(.init(.lock, errorNumber: EWOULDBLOCK)) { table in
            let owned = try PrivateDirectory(parent: directory.path, prefix: "ce", table: table)
            #expect(FaultyHostTable.report.descriptors == [owned.descriptor])
            #expect(directory.names.count == 2)
        }
        #expect(error == nil)
    }
}
