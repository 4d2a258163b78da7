import Glibc

/// The directories that a checkpoint's files may lie in, wherever the links lead by which they are named.
public struct FileRoots: Hashable, Sendable {
    /// Files may lie everywhere.
    public static let everywhere = FileRoots(directories: nil)

    /// Absolute, symbolic links resolved.
    private let directories: [String]?

    private init(directories: [String]?) {
        self.directories = directories
    }

    /// - Throws: ``FilesError`` when one of the directories is not there.
    public init(_ directories: [String]) throws(FilesError) {
        var resolved: [String] = []
        for directory in directories { resolved.append(try ShardFile.resolve(directory)) }
        self.directories = resolved
    }

    /// Checks where a file or directory lies; `path` has no symbolic links.
    func check(_ path: String) throws(FilesError) {
        guard let directories, !directories.contains(where: { Self.lies(path, in: $0) }) else {
            return
        }
        throw FilesError(
            .permissionDenied, path,
            "it lies in none of the directories that checkpoints may come from here: "
                + "\(directories.joined(separator: ", ")) (--allow-path)")
    }

    /// The same of an open file, which another may have taken the name of meanwhile.
    func check(_ descriptor: CInt, _ path: String) throws(FilesError) {
        guard directories != nil else { return }
        let byteCountMax = Int(PATH_MAX)
        var bytes = [CChar](repeating: 0, count: byteCountMax)
        // SAFETY: the call fills no more than the array has; both live for it.
        let count = unsafe readlink("/proc/self/fd/\(descriptor)", &bytes, byteCountMax)
        guard count > 0, count < byteCountMax else {
            throw FilesError(errno, path, "where it lies cannot be found out")
        }
        let place = bytes[..<count].map(UInt8.init(bitPattern:))
        try check(String(decoding: place, as: UTF8.self))
    }

    private static func lies(_ path: String, in directory: String) -> Bool {
        directory == "/" || path.utf8.elementsEqual(directory.utf8)
            || path.utf8.starts(with: "\(directory)/".utf8)
    }
}
