import CheckpointJSON
import CheckpointModel

/// Reads the tensors out of a header's JSON. Names, order and filling are checked by its caller.
struct SafetensorsHeaderParser {
    struct Failure: Error, CustomStringConvertible {
        let description: String
    }

    private var cursor: JSONCursor
    private(set) var tensors: [SafetensorsHeader.Tensor] = []
    private(set) var metadata: [String: String] = [:]
    private var hasMetadata = false

    init(_ bytes: [UInt8]) throws(JSONError) {
        cursor = try JSONCursor(bytes, limits: SafetensorsHeader.limits)
    }

    mutating func parse() throws {
        try cursor.beginObject()
        while let key = try cursor.nextKey() {
            if key == SafetensorsHeader.metadataKey {
                try parseMetadata()
                continue
            }
            guard tensors.count < SafetensorsHeader.tensorCountMax else {
                throw Failure(
                    description: "there are more than \(SafetensorsHeader.tensorCountMax) tensors")
            }
            guard key.utf8.count <= SafetensorsHeader.nameByteCountMax else {
                throw Failure(
                    description: "a tensor's name has \(key.utf8.count) bytes; at most "
                        + "\(SafetensorsHeader.nameByteCountMax) are allowed")
            }
            tensors.append(try parseTensor(key))
        }
        try cursor.end()
    }

    private mutating func parseMetadata() throws {
        guard !hasMetadata else { throw Failure(description: "__metadata__ stands twice") }
        hasMetadata = true
        if try cursor.nextKind() == .null { return try cursor.readNull() }
        var keys: Set<ExactString> = []
        try cursor.beginObject()
        while let key = try cursor.nextKey() {
            metadata[key] = try cursor.readString()
            guard keys.insert(ExactString(key)).inserted else {
                throw Failure(description: "the key \(key) of __metadata__ stands twice")
            }
        }
    }

    private mutating func parseTensor(_ name: String) throws -> SafetensorsHeader.Tensor {
        var dtype: String?
        var dimensions: [Int]?
        var offsets: [Int]?
        try cursor.beginObject()
        while let key = try cursor.nextKey() {
            switch key {
            case "dtype" where dtype == nil: dtype = try cursor.readString()
            case "shape" where dimensions == nil: dimensions = try parseIntegers(key, of: name)
            case "data_offsets" where offsets == nil: offsets = try parseIntegers(key, of: name)
            case "dtype", "shape", "data_offsets":
                throw Failure(description: "the key \(key) of the tensor \(name) stands twice")
            default:
                // The format's own library does not look at further keys either.
                try cursor.skipValue()
            }
        }
        guard let dtype, let dimensions, let offsets else {
            throw Failure(
                description: "the tensor \(name) lacks one of dtype, shape and data_offsets")
        }
        return try Self.tensor(name, dtype, dimensions, offsets)
    }

    private mutating func parseIntegers(_ key: String, of name: String) throws -> [Int] {
        var integers: [Int] = []
        try cursor.beginArray()
        while try cursor.nextElement() {
            guard integers.count < SafetensorsHeader.dimensionCountMax else {
                throw Failure(
                    description:
                        "an array has more than \(SafetensorsHeader.dimensionCountMax) numbers")
            }
            do throws(JSONError) {
                integers.append(try cursor.readInteger(in: 0...Int.max))
            } catch {
                throw Failure(description: "the \(key) of the tensor \(name): \(error)")
            }
        }
        return integers
    }

    private static func tensor(
        _ name: String, _ dtypeName: String, _ dimensions: [Int], _ offsets: [Int]
    ) throws(Failure) -> SafetensorsHeader.Tensor {
        guard let dtype = DType(rawValue: dtypeName) else {
            throw Failure(
                description: "the tensor \(name) has the dtype \(dtypeName); known are "
                    + DType.allCases.map(\.rawValue).joined(separator: ", "))
        }
        guard let shape = Shape(dimensions), let byteCount = shape.byteCount(of: dtype) else {
            throw Failure(
                description:
                    "the tensor \(name) has the shape \(dimensions), which is negative, too "
                    + "large, or fills no whole bytes with \(dtypeName)")
        }
        guard offsets.count == 2, let length = ByteRange(offset: offsets[0], byteCount: 0),
            offsets[1] >= length.offset,
            let range = ByteRange(offset: offsets[0], byteCount: offsets[1] - offsets[0])
        else {
            throw Failure(
                description: "the tensor \(name) has the data_offsets \(offsets); two numbers are "
                    + "expected, the second not below the first")
        }
        guard range.byteCount == byteCount else {
            throw Failure(
                description:
                    "the tensor \(name) has \(range.byteCount) bytes; its shape \(shape) of "
                    + "\(dtypeName) needs \(byteCount)")
        }
        return SafetensorsHeader.Tensor(name: name, dtype: dtype, shape: shape, range: range)
    }
}
