/// Copies from files that lie pinned in memory.
extension CudaStream {
    /// Queues the copy of `byteCount` bytes of `file` from `offset` on to device memory, in as many pieces as
    /// the file's memory has runs.
    ///
    /// - Safety: The range lies in the file, which stays pinned until the copy is done; the target has
    ///   room.
    @unsafe
    public func copy(
        from file: PinnedFile, at offset: Int, to target: DeviceAddress, byteCount: Int
    ) throws(DeviceError) {
        var done = 0
        while done < byteCount {
            let count = min(byteCount - done, file.runByteCount(at: offset + done))
            try unsafe copy(
                fromHost: file.address(at: offset + done), to: target + done, byteCount: count)
            done += count
        }
    }
}
