import CheckpointJSON
import CheckpointModel

/// A `model.safetensors.index.json`: which tensor lies in which file beside it. What it does not list is no part of
/// the checkpoint, wherever it lies.
struct ShardIndex: Sendable {
    static let byteCountMax = 256 << 20
    private static let limits = JSONLimits(
        byteCountMax: byteCountMax, depthMax: 8, stringByteCountMax: 1 << 20)

    let path: String
    /// The names of the files, in the order in which the index first lists them.
    let files: [String]
    /// For each file its tensors. Those of one file are few: tables of them stay in a core's cache.
    private let tensors: [[ExactString]]

    init(_ path: String, in roots: FileRoots) throws(FilesError) {
        let file = try OpenFile(path, in: roots)
        guard file.identity.byteCount <= Self.byteCountMax else {
            throw FilesError(
                .malformed, path, "the index has more than \(Self.byteCountMax) bytes")
        }
        try self.init(file.read(at: 0, byteCount: file.identity.byteCount), path: path)
    }

    /// Parses the text of the index at `path`, which is for messages.
    init(_ bytes: [UInt8], path: String) throws(FilesError) {
        var map = WeightMap()
        do {
            try map.parse(bytes, limits: Self.limits)
        } catch {
            throw FilesError(.malformed, path, "the index is invalid", cause: "\(error)")
        }
        self.path = path
        files = map.files
        tensors = map.tensors
        for name in files { try Self.check(name, path) }
    }

    /// The tensors of a file, given by its place in ``files``, that the index lists for it.
    func tensors(of header: SafetensorsHeader, in file: Int) throws(FilesError)
        -> [SafetensorsHeader.Tensor]
    {
        let names = tensors[file]
        // Both are mostly written in one order.
        if names.count == header.tensors.count,
            zip(names, header.tensors).allSatisfy({ $0 == ExactString($1.name) })
        {
            return header.tensors
        }
        let listed = Set(names)
        guard listed.count == names.count else {
            throw FilesError(
                .malformed, path, "the index lists a tensor twice for the file \(files[file])")
        }
        let found = header.tensors.filter { listed.contains(ExactString($0.name)) }
        guard found.count < listed.count else { return found }
        let missing = listed.subtracting(found.map { ExactString($0.name) })
        throw FilesError(
            .indexMismatch, path,
            "the index says that \(files[file]) has the tensor \(missing.min()?.text ?? ""), which "
                + "it has not (\(missing.count) are missing)")
    }

    /// A shard lies beside its index: its name is a plain file name.
    private static func check(_ name: String, _ path: String) throws(FilesError) {
        guard name.endsExactly(with: ShardChoice.suffix), !name.containsExactly("/"),
            !name.startsExactly(with: "."), !name.containsExactly("\0")
        else {
            throw FilesError(
                .malformed, path,
                "the index names the file \(name); a plain name that ends with .safetensors is expected"
            )
        }
    }
}

/// The member `weight_map` of an index, as it is read.
private struct WeightMap {
    private(set) var files: [String] = []
    private(set) var tensors: [[ExactString]] = []
    private var numbers: [ExactString: Int] = [:]

    mutating func parse(_ bytes: [UInt8], limits: JSONLimits) throws {
        var isThere = false
        var cursor = try JSONCursor(bytes, limits: limits)
        try cursor.beginObject()
        while let key = try cursor.nextKey() {
            guard key == "weight_map" else {
                try cursor.skipValue()
                continue
            }
            guard !isThere else {
                throw SafetensorsHeaderParser.Failure(description: "weight_map stands twice")
            }
            isThere = true
            try parseEntries(&cursor)
        }
        try cursor.end()
        guard !files.isEmpty else {
            throw SafetensorsHeaderParser.Failure(
                description: isThere ? "weight_map names no tensor" : "there is no weight_map")
        }
    }

    private mutating func parseEntries(_ cursor: inout JSONCursor) throws {
        var last = (name: ExactString(""), number: -1)
        try cursor.beginObject()
        while let tensor = try cursor.nextKey() {
            let name = ExactString(try cursor.readString())
            // Neighbours in an index are mostly neighbours in a file.
            if last.number < 0 || last.name != name { last = (name, number(of: name)) }
            tensors[last.number].append(ExactString(tensor))
        }
    }

    private mutating func number(of file: ExactString) -> Int {
        if let number = numbers[file] { return number }
        numbers[file] = files.count
        files.append(file.text)
        tensors.append([])
        return files.count - 1
    }
}
