import Glibc

/// What the kernel tells of the pages of this process.
/// Source: `Documentation/admin-guide/mm/pagemap.rst`.
enum PageMap {
    private static let entryByteCount = 8
    private static let presentBit: UInt64 = 1 << 63

    /// Whether the page of the byte at `offset` of a mapping is in memory, and mapped here; `false` also where that is
    /// not told.
    static func isPresent(_ base: UInt, at offset: Int) -> Bool {
        // SAFETY: the bridged string lives for the call.
        let descriptor = unsafe open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0, offset >= 0 else { return false }
        defer { close(descriptor) }
        var entry: UInt64 = 0
        let page = (Int(bitPattern: base) + offset) / sysconf(CInt(_SC_PAGESIZE))
        // SAFETY: `entry` has so many bytes and outlives the call.
        let count = unsafe pread(
            descriptor, &entry, entryByteCount, off_t(page * entryByteCount))
        return count == entryByteCount && entry & presentBit != 0
    }
}
