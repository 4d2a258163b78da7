import CheckpointNative
import Glibc

/// The files that one path stands for, and the index that lists them, if there is one.
struct CheckpointListing: Sendable {
    private static let suffix = ".safetensors"
    private static let indexSuffix = ".safetensors.index.json"

    let files: [String]
    private let indexPath: String?
    /// Tensors that the index expects, by path of their file.
    private let expected: [String: Set<String>]

    init(_ path: String) throws(FilesError) {
        guard let indexPath = try Self.indexPath(path) else {
            self.files = try Self.files(path)
            self.indexPath = nil
            self.expected = [:]
            return
        }
        let index = try ShardIndex(indexPath)
        let directory = indexPath.split(separator: "/").dropLast().map { "/" + $0 }.joined()
        var expected: [String: Set<String>] = [:]
        for (tensor, name) in index.weightMap {
            expected["\(directory)/\(name)", default: []].insert(tensor)
        }
        self.files = expected.keys.sorted()
        self.indexPath = indexPath
        self.expected = expected
        for file in files where !Self.exists(file) {
            throw FilesError(
                .indexMismatch, indexPath,
                "the index lists \(file), which is not there; copy all files of the checkpoint")
        }
    }

    /// Checks that a file has exactly the tensors that the index says.
    func check(_ header: SafetensorsHeader, of file: String) throws(FilesError) {
        guard let indexPath, let expected = expected[file] else { return }
        let found = Set(header.tensors.map(\.name))
        if let missing = expected.subtracting(found).sorted().first {
            throw FilesError(
                .indexMismatch, indexPath,
                "the index says that \(file) has the tensor \(missing), which it has not "
                    + "(\(expected.subtracting(found).count) are missing)")
        }
        if let extra = found.subtracting(expected).sorted().first {
            throw FilesError(
                .indexMismatch, indexPath,
                "the file \(file) has the tensor \(extra), which the index does not list for it "
                    + "(\(found.subtracting(expected).count) are extra)")
        }
    }

    /// The index that `path` is or has; `nil` when the path is a file or a directory without one.
    private static func indexPath(_ path: String) throws(FilesError) -> String? {
        if path.hasSuffix(indexSuffix) {
            // Shards lie beside the index under the name that was given, not where a link leads.
            let directory = path.split(separator: "/", omittingEmptySubsequences: false).dropLast()
            let parent = directory.joined(separator: "/")
            let name = path.split(separator: "/").last ?? ""
            let resolved = try ShardFile.resolve(
                directory.isEmpty ? "." : parent.isEmpty ? "/" : parent)
            return "\(resolved)/\(name)"
        }
        let resolved = try ShardFile.resolve(path)
        guard isDirectory(resolved) else { return nil }
        let indexes = DirectoryListing.names(in: resolved).sorted().filter {
            $0.hasSuffix(indexSuffix)
        }
        guard indexes.count <= 1 else {
            throw FilesError(
                .notACheckpoint, path,
                "the directory has several indexes (\(indexes.joined(separator: ", "))); name one")
        }
        return indexes.first.map { "\(resolved)/\($0)" }
    }

    private static func files(_ path: String) throws(FilesError) -> [String] {
        let resolved = try ShardFile.resolve(path)
        guard isDirectory(resolved) else {
            guard path.hasSuffix(suffix) || resolved.hasSuffix(suffix) else {
                throw FilesError(
                    .notACheckpoint, path,
                    "its name does not end with .safetensors or .safetensors.index.json")
            }
            return [path]
        }
        let files = DirectoryListing.names(in: resolved).sorted().filter { $0.hasSuffix(suffix) }
            .map { "\(resolved)/\($0)" }
        guard !files.isEmpty else {
            throw FilesError(
                .notACheckpoint, path, "the directory has no file that ends with .safetensors")
        }
        return files
    }

    private static func exists(_ path: String) -> Bool {
        // SAFETY: the bridged string lives for the call.
        unsafe access(path, F_OK) == 0
    }

    private static func isDirectory(_ path: String) -> Bool {
        var status = stat()
        // SAFETY: the bridged string and `status` live for the call.
        return unsafe stat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFDIR
    }
}
