import Glibc

/// The contents of directories.
public enum DirectoryListing {
    /// The names in a directory, without `.` and `..`; none where it cannot be read.
    public static func names(in path: String) -> [String] {
        // SAFETY: the stream is used by this call alone and closed before it returns; an entry is
        // valid until the next readdir of the same stream, and its name is copied at once.
        guard let stream = unsafe opendir(path) else { return [] }
        defer { unsafe closedir(stream) }
        var names: [String] = []
        while let entry = unsafe readdir(stream) {
            let name = unsafe withUnsafePointer(to: &entry.pointee.d_name) { pointer in
                unsafe pointer.withMemoryRebound(to: CChar.self, capacity: 256) {
                    unsafe String(cString: $0)
                }
            }
            if name != ".", name != ".." { names.append(name) }
        }
        return names
    }
}
