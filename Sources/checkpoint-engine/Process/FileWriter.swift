import Glibc

/// Writes to open files.
enum FileWriter {
    /// A write that did not take all bytes; `name` is what was written to.
    struct Failure: Error {
        let errorNumber: CInt
        let name: String
    }

    /// Writes all of the bytes. The caller keeps the descriptor.
    static func write(_ bytes: [UInt8], to descriptor: CInt, named name: String) throws(Failure) {
        var rest = bytes[...]
        while !rest.isEmpty {
            // SAFETY: the length passed is that of the buffer, which lives for the call.
            let count = unsafe rest.withUnsafeBytes { buffer in
                unsafe Glibc.write(descriptor, buffer.baseAddress, buffer.count)
            }
            if count > 0 {
                rest = rest.dropFirst(count)
            } else if count == 0 {
                throw Failure(errorNumber: EIO, name: name)
            } else if errno == EAGAIN {
                try waitUntilWritable(descriptor, named: name)
            } else if errno != EINTR {
                throw Failure(errorNumber: errno, name: name)
            }
        }
    }

    /// A pipe that another process has made non-blocking is full until somebody reads: that is waited for
    /// as it is with any other pipe.
    private static func waitUntilWritable(_ descriptor: CInt, named name: String) throws(Failure) {
        var item = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
        // SAFETY: one item is passed, which outlives the call.
        guard unsafe poll(&item, 1, -1) >= 0 || errno == EINTR else {
            throw Failure(errorNumber: errno, name: name)
        }
    }
}
