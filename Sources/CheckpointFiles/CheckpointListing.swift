import CheckpointModel
import CheckpointNative
import Glibc

/// The files that one path stands for, and the index that lists them, if there is one.
struct CheckpointListing: Sendable {
    private static let indexSuffix = ".safetensors.index.json"

    /// Those that an index lists stand in its order.
    let files: [String]
    let index: ShardIndex?

    init(_ path: String, in roots: FileRoots) throws(FilesError) {
        try roots.check(try ShardFile.resolve(path))
        guard let indexPath = try Self.indexPath(path) else {
            self.files = try Self.files(path)
            self.index = nil
            return
        }
        let index = try ShardIndex(indexPath, in: roots)
        let directory = indexPath.directoryPath
        self.files = index.files.map { "\(directory)/\($0)" }
        self.index = index
        for file in files {
            // SAFETY: the bridged string lives for the call.
            guard unsafe access(file, F_OK) != 0 else { continue }
            let number = errno
            if SystemFault(number) == .path {
                throw FilesError(
                    .indexMismatch, indexPath,
                    "the index lists \(file), which is not there; copy all files of the checkpoint")
            }
            throw FilesError(number, file, "it cannot be looked at")
        }
    }

    /// The index that `path` is or has; `nil` when the path is a file or a directory without one.
    private static func indexPath(_ path: String) throws(FilesError) -> String? {
        if path.endsExactly(with: indexSuffix) {
            // Shards lie beside the index under the name that was given, not where a link leads.
            return "\(try ShardFile.resolve(path.directoryPath))/\(path.lastPathComponent)"
        }
        let resolved = try ShardFile.resolve(path)
        guard isDirectory(resolved) else { return nil }
        let indexes = try names(in: resolved).filter {
            $0.endsExactly(with: indexSuffix) && !$0.startsExactly(with: ".")
        }
        // What its makers call consolidated is the same model in another form.
        let main = indexes.filter { !$0.startsExactly(with: "consolidated.") }
        let chosen = main.isEmpty ? indexes : main
        guard chosen.count <= 1 else {
            throw FilesError(
                .notACheckpoint, path,
                "the directory has several indexes (\(chosen.sorted().joined(separator: ", "))); "
                    + "name one")
        }
        return chosen.first.map { "\(resolved)/\($0)" }
    }

    private static func files(_ path: String) throws(FilesError) -> [String] {
        let resolved = try ShardFile.resolve(path)
        guard isDirectory(resolved) else {
            guard [path, resolved].contains(where: { $0.endsExactly(with: ShardChoice.suffix) })
            else {
                throw FilesError(
                    .notACheckpoint, path,
                    "its name does not end with .safetensors or .safetensors.index.json")
            }
            return [path]
        }
        let entries = try names(in: resolved)
        do throws(ShardChoice.Refusal) {
            return try ShardChoice(among: entries).names.map { "\(resolved)/\($0)" }
        } catch {
            throw FilesError(.notACheckpoint, path, error.description)
        }
    }

    private static func names(in directory: String) throws(FilesError) -> [String] {
        do throws(FileFailure) {
            return try DirectoryListing.names(in: directory)
        } catch {
            guard case .call(_, let number) = error else {
                preconditionFailure("a directory is not compared with what it was")
            }
            throw FilesError(number, directory, "the directory cannot be listed")
        }
    }

    private static func isDirectory(_ path: String) -> Bool {
        var status = stat()
        // SAFETY: the bridged string and `status` live for the call.
        return unsafe stat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFDIR
    }
}
