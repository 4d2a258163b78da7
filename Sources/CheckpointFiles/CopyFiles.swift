import Glibc

/// The two files of a copy, open; closed with this value.
struct CopyFiles: ~Copyable {
    let source: OpenFile
    private let dataOffset: Int
    private let destination: CInt

    /// Opens both. Throws when the source is not the file any more whose header was read.
    init(_ copy: ShardReader.Copy) throws(FilesError) {
        let file = try OpenFile(copy.shard.path, in: .everywhere)
        guard file.identity == copy.shard.identity else {
            throw FilesError(
                .changed, copy.shard.givenPath,
                "the file was replaced or written to since its header was read")
        }
        posix_fadvise(file.descriptor, 0, 0, CInt(POSIX_FADV_SEQUENTIAL))
        // SAFETY: the bridged string lives for the call.
        let target = unsafe open(copy.destinationPath, O_WRONLY | O_CLOEXEC | O_NOFOLLOW)
        guard target >= 0 else {
            throw FilesError(errno, copy.destinationPath, "the copy of a file cannot be opened")
        }
        source = file
        dataOffset = copy.shard.dataOffset
        destination = target
    }

    deinit { close(destination) }

    /// Copies so many bytes from `offset` of the data section on; `buffer` has room for them.
    func copy(from offset: Int, byteCount: Int, through buffer: inout [UInt8]) throws(FilesError) {
        try source.read(at: dataOffset + offset, byteCount: byteCount, into: &buffer)
        try write(at: offset, byteCount: byteCount, from: buffer)
    }

    private func write(at offset: Int, byteCount: Int, from buffer: [UInt8]) throws(FilesError) {
        var written = 0
        while written < byteCount {
            // SAFETY: `written ..< byteCount` lies inside the buffer, which lives for the call.
            let count = unsafe buffer.withUnsafeBytes { bytes in
                unsafe pwrite(
                    destination, bytes.baseAddress.map { unsafe $0 + written },
                    byteCount - written, off_t(offset + written))
            }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else {
                throw FilesError(errno, source.path, "its copy in shared memory cannot be written")
            }
            written += count
        }
    }
}
