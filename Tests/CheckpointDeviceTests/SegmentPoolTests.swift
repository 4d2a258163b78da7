@testable import CheckpointDevice
import CheckpointTesting
import Glibc
import Testing

struct SegmentPoolTests {
    private let directory: TemporaryDirectory

    init() throws { directory = try TemporaryDirectory(in: "/dev/shm") }

    private func pool(limit: Int? = nil, available: Int? = nil) throws -> SegmentPool {
        try SegmentPool(
            directory: directory.path, byteCountMax: limit,
            budget: { MemoryBudget(availableByteCount: available) })
    }

    private static func mode(_ path: String) -> mode_t {
        var status = stat()
        return unsafe stat(path, &status) == 0 ? status.st_mode & 0o777 : 0
    }

    @Test func segmentsArePrivateFilesOfWholePages() throws {
        let pool = try pool()
        let segments = try pool.acquire(byteCounts: [1, 4096, 4097, 0])
        #expect(segments.map(\.byteCount) == [4096, 4096, 8192, 4096])
        #expect(Self.mode(pool.path) == 0o700)
        #expect(segments.allSatisfy { Self.mode($0.path) == 0o600 })
        #expect(pool.usage.usedByteCount == 20480)
        pool.close()
        #expect(directory.names.isEmpty)
    }

    @Test func aVersionOfEqualLayoutGetsTheSameMemory() throws {
        let pool = try pool()
        let first = try pool.acquire(byteCounts: [5000, 100])
        let inodes = Set(first.map(\.inode))
        pool.release(first, retains: true)
        #expect(pool.usage == .init(usedByteCount: 0, retainedByteCount: 12288))
        let second = try pool.acquire(byteCounts: [100, 5000])
        #expect(Set(second.map(\.inode)) == inodes)
        #expect(pool.usage == .init(usedByteCount: 12288, retainedByteCount: 0))
    }

    @Test func whatIsNotRetainedIsGone() throws {
        let pool = try pool()
        pool.release(try pool.acquire(byteCounts: [100]), retains: false)
        #expect(pool.usage == .init())
        #expect(TemporaryDirectory.names(in: pool.path).isEmpty)
    }

    @Test func refusesWithNumbersBeforeAnythingIsMade() throws {
        let pool = try pool(limit: 10_000)
        let error = #expect(throws: DeviceError.self) {
            try pool.acquire(byteCounts: [4096, 8192])
        }
        #expect(error?.code == .insufficientMemory)
        #expect(error?.message.contains("12288") == true)
        #expect(error?.message.contains("10000") == true)
        #expect(pool.usage == .init())
        #expect(TemporaryDirectory.names(in: pool.path).isEmpty)
        _ = try pool.acquire(byteCounts: [8192])
    }

    @Test func refusesWhatTheMachineHasNot() throws {
        let pool = try pool(available: 4096)
        #expect(throws: DeviceError.self) { try pool.acquire(byteCounts: [4097]) }
        #expect(throws: DeviceError.self) { try pool.acquire(byteCounts: [Int.max, Int.max]) }
        _ = try pool.acquire(byteCounts: [4096])
    }

    @Test func retainedMemoryMakesRoom() throws {
        let pool = try pool(limit: 12288)
        pool.release(try pool.acquire(byteCounts: [8192]), retains: true)
        let other = try pool.acquire(byteCounts: [12288])
        #expect(pool.usage == .init(usedByteCount: 12288, retainedByteCount: 0))
        #expect(other[0].byteCount == 12288)
    }

    @Test func aFailedRequestKeepsWhatWasRetained() throws {
        let pool = try pool(limit: 16384)
        let used = try pool.acquire(byteCounts: [8192])
        pool.release(try pool.acquire(byteCounts: [4096]), retains: true)
        #expect(throws: DeviceError.self) { try pool.acquire(byteCounts: [4096, 8192]) }
        #expect(pool.usage.usedByteCount == 8192)
        pool.release(used, retains: false)
        #expect(pool.usage.usedByteCount == 0)
    }
}

struct PrivateDirectoryTests {
    @Test func directoriesOfDeadOwnersAreRemoved() throws {
        let parent = try TemporaryDirectory()
        let living = try PrivateDirectory(parent: parent.path, prefix: "ce")
        // One that nobody has locked, as a killed process leaves it, and one of another prefix.
        unsafe mkdir("\(parent.path)/ce-\(getuid())-1-dead", 0o700)
        try parent.write([1], to: "ce-\(getuid())-1-dead/segment-0")
        unsafe mkdir("\(parent.path)/other-\(getuid())-1-dead", 0o700)
        #expect(PrivateDirectory.leftovers(parent: parent.path, prefix: "ce").count == 1)
        let next = try PrivateDirectory(parent: parent.path, prefix: "ce")
        #expect(
            Set(parent.names.map { "\(parent.path)/\($0)" })
                == [living.path, next.path, "\(parent.path)/other-\(getuid())-1-dead"])
    }

    @Test func goesWithItsOwner() throws {
        let parent = try TemporaryDirectory()
        do {
            let owned = try PrivateDirectory(parent: parent.path, prefix: "ce")
            #expect(parent.names.count == 1)
            owned.remove()
            #expect(parent.names.isEmpty)
        }
        #expect(throws: DeviceError.self) {
            try PrivateDirectory(parent: "\(parent.path)/nowhere", prefix: "ce")
        }
    }
}
