import CheckpointNative
import CheckpointTesting
import Glibc
import Testing

@testable import CheckpointDevice

struct PageMapTests {
    /// A file that is emptied and written again has other pages than those that were mapped: pinned ones would be
    /// copied as they were.
    @Test func pagesThatAFileHasLostAreNoticed() throws {
        let directory = try TemporaryDirectory(in: "/dev/shm")
        let content = [UInt8](repeating: 1, count: 3 * 4096)
        let path = try directory.write(content, to: "a")
        let file = try FileMapping(path)
        let base = unsafe UInt(bitPattern: file.address)
        let last = content.count - 1
        #expect(!PageMap.isPresent(base, at: last))
        #expect(unsafe file.address.load(fromByteOffset: last, as: UInt8.self) == 1)
        #expect(PageMap.isPresent(base, at: last))
        let descriptor = unsafe open(path, O_WRONLY)
        defer { close(descriptor) }
        // Written over, they stay.
        try #require(unsafe pwrite(descriptor, content, content.count, 0) == content.count)
        #expect(PageMap.isPresent(base, at: last))
        try #require(ftruncate(descriptor, 0) == 0)
        try #require(unsafe pwrite(descriptor, content, content.count, 0) == content.count)
        #expect(!PageMap.isPresent(base, at: last))
        #expect(!PageMap.isPresent(base, at: -1))
    }
}
