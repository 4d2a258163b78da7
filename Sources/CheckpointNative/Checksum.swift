import CNative

/// Checksums of bytes in memory. Pure; no call blocks or allocates.
public enum Checksum {
    /// Whether the processor's own instruction is used: then it is as fast as memory is, else about
    /// 2 GB/s.
    public static var isAccelerated: Bool { ce_crc32c_is_accelerated() == 1 }

    /// The CRC-32C of `bytes`, which follow bytes whose CRC-32C is `before` (0: none).
    ///
    /// The caller keeps the memory mapped; when somebody writes to it meanwhile, the sum is that of
    /// neither.
    public static func crc32c(
        _ bytes: UnsafeRawBufferPointer, following before: UInt32 = 0
    ) -> UInt32 {
        // SAFETY: the buffer's memory is readable as far as its count, and the call keeps no
        // pointer to it.
        unsafe ce_crc32c(before, bytes.baseAddress, bytes.count)
    }

    /// The CRC-32C of `bytes`, which follow bytes whose CRC-32C is `before` (0: none).
    public static func crc32c(_ bytes: RawSpan, following before: UInt32 = 0) -> UInt32 {
        // SAFETY: the pointer is used inside the closure alone.
        unsafe bytes.withUnsafeBytes { unsafe crc32c($0, following: before) }
    }
}
