import CheckpointJSON
import CheckpointModel

extension CatalogMessage {
    private static let tensorCountMax = 2_000_000
    private static let body = JSONLimits(
        byteCountMax: 1 << 30, depthMax: 4, stringByteCountMax: 64 << 10)

    init(_ reader: inout MessageReader, body: [UInt8]) throws(WorkerError) {
        let count = try reader.integer("tensors")
        let byteCount = try reader.integer("bytes")
        let segments = try reader.array("segments").map { value throws(WorkerError) in
            try Self.segment(value)
        }
        let tensors = try Self.tensors(body, in: segments)
        self.init(segments: segments, tensors: tensors)
        guard tensors.count == count, self.byteCount == byteCount else {
            throw MessageFrames.violation(
                "the catalog has \(tensors.count) tensors of \(self.byteCount) bytes; its header says "
                    + "\(count) of \(byteCount)")
        }
        guard Set(tensors.map(\.name)).count == count else {
            throw MessageFrames.violation("two tensors of the catalog have one name")
        }
    }

    private static func segment(_ value: JSONValue) throws(WorkerError) -> SegmentLocation {
        guard case .object(let object) = value else {
            throw MessageFrames.violation("a segment is not an object")
        }
        var reader = MessageReader(object)
        let path = try reader.string("path")
        let inode = try reader.integer("inode")
        let byteCount = try reader.integer("bytes")
        let dataOffset = try reader.integer("data_offset")
        try reader.finish()
        guard path.hasPrefix("/"), dataOffset <= byteCount else {
            throw MessageFrames.violation("the segment \(path) is impossible")
        }
        return SegmentLocation(
            path: path, inode: UInt64(inode), fileByteCount: byteCount, dataOffset: dataOffset)
    }

    private static func tensors(_ bytes: [UInt8], in segments: [SegmentLocation])
        throws(WorkerError) -> [TensorEntry]
    {
        let value: JSONValue
        do throws(JSONError) {
            value = try JSONValue.parse(bytes, limits: body)
        } catch {
            throw MessageFrames.violation("the catalog's body: \(error)")
        }
        guard case .array(let rows) = value, rows.count <= tensorCountMax else {
            throw MessageFrames.violation("the catalog's body is not an array of rows")
        }
        return try rows.map { row throws(WorkerError) in try tensor(row, in: segments) }
    }

    private static func tensor(_ row: JSONValue, in segments: [SegmentLocation])
        throws(WorkerError) -> TensorEntry
    {
        guard case .array(let fields) = row, fields.count == 5,
            case .string(let name) = fields[0], case .string(let dtypeName) = fields[1],
            case .array(let dimensionValues) = fields[2], case .integer(let segment) = fields[3],
            case .integer(let offset) = fields[4]
        else { throw MessageFrames.violation("a row of the catalog has another form") }
        let dimensions = dimensionValues.compactMap { value -> Int? in
            guard case .integer(let dimension) = value else { return nil }
            return dimension
        }
        guard let dtype = DType(rawValue: dtypeName), dimensions.count == dimensionValues.count,
            let shape = Shape(dimensions), let byteCount = shape.byteCount(of: dtype),
            let range = ByteRange(offset: offset, byteCount: byteCount),
            segments.indices.contains(segment),
            range.end <= segments[segment].fileByteCount - segments[segment].dataOffset
        else {
            throw MessageFrames.violation(
                "the tensor \(name) of type \(dtypeName) does not fit its segment")
        }
        return TensorEntry(
            name: name, dtype: dtype, shape: shape, shard: segment, range: range)
    }

    func frames() -> [[UInt8]] {
        let header = MessageFrames.message(
            "catalog",
            [
                ("tensors", .integer(tensors.count)), ("bytes", .integer(byteCount)),
                ("segments", .array(segments.map(Self.value))),
            ])
        var body: [UInt8] = []
        body.reserveCapacity(tensors.count * 96)
        body.append(UInt8(ascii: "["))
        for (place, tensor) in tensors.enumerated() {
            if place > 0 { body.append(UInt8(ascii: ",")) }
            body.append(contentsOf: Self.value(tensor).encoded())
        }
        body.append(UInt8(ascii: "]"))
        return [header, body]
    }

    private static func value(_ segment: SegmentLocation) -> JSONValue {
        .object(
            JSONObject([
                ("path", .string(segment.path)), ("inode", .integer(Int(clamping: segment.inode))),
                ("bytes", .integer(segment.fileByteCount)),
                ("data_offset", .integer(segment.dataOffset)),
            ]))
    }

    private static func value(_ tensor: TensorEntry) -> JSONValue {
        .array([
            .string(tensor.name), .string(tensor.dtype.rawValue),
            .array(tensor.shape.dimensions.map(JSONValue.integer)), .integer(tensor.shard),
            .integer(tensor.range.offset),
        ])
    }
}
