import Glibc

/// The contents of directories.
public enum DirectoryListing {
    /// The names in a directory, without `.` and `..`. Throws where it cannot be read to its end: what is left out
    /// then nobody can tell.
    public static func names(in path: String) throws(FileFailure) -> [String] {
        // SAFETY: the stream is used by this call alone and closed before it returns; an entry is
        // valid until the next readdir of the same stream, and its name is copied at once.
        guard let stream = unsafe opendir(path) else { throw .call("opendir", errno: errno) }
        defer { unsafe closedir(stream) }
        var names: [String] = []
        while true {
            // The end and a failure look alike but for this.
            errno = 0
            guard let entry = unsafe readdir(stream) else {
                let number = errno
                guard number == 0 else { throw .call("readdir", errno: number) }
                return names
            }
            let name = unsafe withUnsafePointer(to: &entry.pointee.d_name) { pointer in
                unsafe pointer.withMemoryRebound(to: CChar.self, capacity: 256) {
                    unsafe String(cString: $0)
                }
            }
            if name != ".", name != ".." { names.append(name) }
        }
    }
}
