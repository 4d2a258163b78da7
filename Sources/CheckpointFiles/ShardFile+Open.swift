import CheckpointModel
import Glibc

extension ShardFile {
    /// Opens one file and parses its header.
    static func open(_ path: String, in roots: FileRoots) throws(FilesError) -> (
        ShardFile, SafetensorsHeader
    ) {
        let resolved = try resolve(path)
        let file = try OpenFile(resolved, in: roots)
        let byteCount = file.identity.byteCount
        let prefix = SafetensorsHeader.lengthByteCount
        guard byteCount >= prefix else {
            throw FilesError(
                .wrongLength, path,
                "the file has \(byteCount) bytes, fewer than the \(prefix) that every safetensors file "
                    + "starts with; it is empty or truncated")
        }
        let length = try file.read(at: 0, byteCount: prefix).reversed()
            .reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        guard length <= UInt64(SafetensorsHeader.byteCountMax), length >= 2 else {
            // What stands there is not told: the file may be anything.
            throw FilesError(
                .malformed, path,
                "its first \(prefix) bytes are no length of a header, 2 to "
                    + "\(SafetensorsHeader.byteCountMax) bytes" + (try hint(file)))
        }
        guard Int(length) <= byteCount - prefix else {
            throw FilesError(
                .wrongLength, path,
                "the header is longer than the \(byteCount - prefix) bytes that follow its length"
                    + (try hint(file)))
        }
        let dataOffset = prefix + Int(length)
        let header = try SafetensorsHeader(
            file.read(at: prefix, byteCount: Int(length)), dataByteCount: byteCount - dataOffset,
            path: path)
        let directory = try resolve(path.directoryPath)
        let given = directory == "/" ? "/" : "\(directory)/"
        let shard = ShardFile(
            path: resolved, givenPath: given + path.lastPathComponent, byteCount: byteCount,
            dataOffset: dataOffset,
            metadata: header.metadata, isSharedMemory: file.isInSharedMemory,
            identity: file.identity)
        return (shard, header)
    }

    /// What the file may be instead, by its first bytes.
    private static func hint(_ file: OpenFile) throws(FilesError) -> String {
        let start = try file.read(at: 0, byteCount: min(file.identity.byteCount, 16))
        if start.starts(with: "version https://".utf8) {
            return "; it is a Git LFS pointer, fetch the real file with git lfs pull"
        }
        if start.starts(with: [0x50, 0x4b]) || start.starts(with: [0x80]) {
            return "; it looks like a PyTorch pickle, convert it to safetensors"
        }
        if start.starts(with: "GGUF".utf8) { return "; it is a GGUF file" }
        if start.first == UInt8(ascii: "<") {
            return "; it looks like a web page in the place of the file, download it again"
        }
        return ""
    }

    /// What a path that does not exist may be instead.
    private static func missingHint(_ path: String) -> String? {
        let bytes = Array(path.utf8)
        let scheme = bytes.prefix { $0 != UInt8(ascii: ":") }
        if bytes.dropFirst(scheme.count).starts(with: "://".utf8) {
            return
                "it is a URL, not a path: download the checkpoint and name the directory that it "
                + "is in"
        }
        let parts = bytes.split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false)
        let isPlain = parts.allSatisfy { !$0.isEmpty && $0.first != UInt8(ascii: ".") }
        guard parts.count == 2, isPlain, !path.endsExactly(with: ShardChoice.suffix) else {
            return nil
        }
        return "there is no such directory; if it is the name of a model on a hub, download it and "
            + "name the directory that it is in"
    }

    static func resolve(_ path: String) throws(FilesError) -> String {
        // SAFETY: realpath allocates its answer, which is copied and freed here.
        guard let resolved = unsafe realpath(path, nil) else {
            let number = errno
            guard number == ENOENT, let hint = missingHint(path) else {
                throw FilesError(number, path, "it cannot be opened")
            }
            throw FilesError(.missing, path, hint)
        }
        defer { unsafe free(resolved) }
        return unsafe String(cString: resolved)
    }
}
