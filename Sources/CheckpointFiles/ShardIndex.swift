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
    /// How many tensors each file has to have.
    private let counts: [Int]
    /// For each tensor the place of its file in ``files``.
    private let places: [ExactString: Int]

    init(_ path: String) throws(FilesError) {
        let file = try OpenFile(path)
        guard file.identity.byteCount <= Self.byteCountMax else {
            throw FilesError(
                .malformed, path, "the index has more than \(Self.byteCountMax) bytes")
        }
        var map = WeightMap()
        do {
            let bytes = try file.read(at: 0, byteCount: file.identity.byteCount)
            try map.parse(bytes, limits: Self.limits)
        } catch let error as FilesError {
            throw error
        } catch {
            throw FilesError(.malformed, path, "the index is invalid", cause: "\(error)")
        }
        self.path = path
        files = map.files
        counts = map.counts
        places = map.places
        for name in files { try Self.check(name, path) }
    }

    /// The tensors of a file, given by its place in ``files``, that the index lists for it.
    func tensors(of header: SafetensorsHeader, in file: Int) throws(FilesError)
        -> [SafetensorsHeader.Tensor]
    {
        let listed = header.tensors.filter { places[ExactString($0.name)] == file }
        guard listed.count < counts[file] else { return listed }
        let found = Set(listed.map { ExactString($0.name) })
        let missing = places.filter { $0.value == file && !found.contains($0.key) }
        throw FilesError(
            .indexMismatch, path,
            "the index says that \(files[file]) has the tensor "
                + "\(missing.keys.min()?.text ?? ""), which it has not (\(missing.count) are missing)"
        )
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
    private(set) var counts: [Int] = []
    private(set) var places: [ExactString: Int] = [:]
    private var numbers: [ExactString: Int] = [:]

    /// Bytes of an index that a tensor takes at least, nearly always.
    private static let entryByteCount = 64

    mutating func parse(_ bytes: [UInt8], limits: JSONLimits) throws {
        var isThere = false
        var cursor = try JSONCursor(bytes, limits: limits)
        places.reserveCapacity(bytes.count / Self.entryByteCount)
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
        guard !places.isEmpty else {
            throw SafetensorsHeaderParser.Failure(
                description: isThere ? "weight_map names no tensor" : "there is no weight_map")
        }
    }

    private mutating func parseEntries(_ cursor: inout JSONCursor) throws {
        try cursor.beginObject()
        while let tensor = try cursor.nextKey() {
            let file = number(of: try cursor.readString())
            guard places.updateValue(file, forKey: ExactString(tensor)) == nil else {
                throw SafetensorsHeaderParser.Failure(
                    description: "the tensor \(tensor) stands twice in weight_map")
            }
            counts[file] += 1
        }
    }

    private mutating func number(of file: String) -> Int {
        let name = ExactString(file)
        if let number = numbers[name] { return number }
        numbers[name] = files.count
        files.append(file)
        counts.append(0)
        return files.count - 1
    }
}
