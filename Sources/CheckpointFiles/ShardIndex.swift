import CheckpointJSON

/// A `model.safetensors.index.json`: which tensor lies in which file beside it.
struct ShardIndex: Sendable {
    static let byteCountMax = 256 << 20
    private static let limits = JSONLimits(
        byteCountMax: byteCountMax, depthMax: 8, stringByteCountMax: 1 << 20)

    let path: String
    /// File name by tensor name.
    let weightMap: [String: String]

    init(_ path: String) throws(FilesError) {
        let file = try OpenFile(path)
        guard file.identity.byteCount <= Self.byteCountMax else {
            throw FilesError(
                .malformed, path, "the index has more than \(Self.byteCountMax) bytes")
        }
        let bytes = try file.read(at: 0, byteCount: file.identity.byteCount)
        do {
            weightMap = try Self.parse(bytes)
        } catch {
            throw FilesError(.malformed, path, "the index is invalid", cause: "\(error)")
        }
        self.path = path
        for name in Set(weightMap.values) { try Self.check(name, path) }
    }

    private static func parse(_ bytes: [UInt8]) throws -> [String: String] {
        var map: [String: String]?
        var cursor = try JSONCursor(bytes, limits: limits)
        try cursor.beginObject()
        while let key = try cursor.nextKey() {
            guard key == "weight_map" else {
                try cursor.skipValue()
                continue
            }
            guard map == nil else {
                throw SafetensorsHeaderParser.Failure(description: "weight_map stands twice")
            }
            var entries: [String: String] = [:]
            try cursor.beginObject()
            while let tensor = try cursor.nextKey() {
                guard entries.updateValue(try cursor.readString(), forKey: tensor) == nil else {
                    throw SafetensorsHeaderParser.Failure(
                        description: "the tensor \(tensor) stands twice in weight_map")
                }
            }
            map = entries
        }
        try cursor.end()
        guard let map, !map.isEmpty else {
            throw SafetensorsHeaderParser.Failure(
                description: map == nil ? "there is no weight_map" : "weight_map names no tensor")
        }
        return map
    }

    /// A shard lies beside its index: its name is a plain file name.
    private static func check(_ name: String, _ path: String) throws(FilesError) {
        guard name.hasSuffix(".safetensors"), !name.contains("/"), !name.hasPrefix("."),
            !name.utf8.contains(0)
        else {
            throw FilesError(
                .malformed, path,
                "the index names the file \(name); a plain name that ends with .safetensors is expected"
            )
        }
    }
}
