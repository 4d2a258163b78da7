import CheckpointJSON
public import CheckpointModel

extension CatalogMessage {
    private static let tensorCountMax = 2_000_000
    private static let dimensionCountMax = 64
    private static let rowByteCountTypical = 96
    private static let body = JSONLimits(
        byteCountMax: 1 << 30, depthMax: 4, stringByteCountMax: 64 << 10)

    init(_ reader: inout MessageReader, body: [UInt8]) throws(WorkerError) {
        let count = try reader.integer("tensors", in: 0...Self.tensorCountMax)
        let byteCount = try reader.integer("bytes", in: ByteCount.range)
        let memory = try Self.memory(try reader.array("segments"))
        let tensors = try Self.tensors(body, in: memory.rooms)
        self.init(memory: memory, tensors: tensors)
        guard tensors.count == count, self.byteCount == byteCount else {
            throw MessageFrames.violation(
                "the catalog has \(tensors.count) tensors of \(self.byteCount) bytes; its header says "
                    + "\(count) of \(byteCount)")
        }
        guard Set(tensors.map { ExactString($0.name) }).count == count else {
            throw MessageFrames.violation("two tensors of the catalog have one name")
        }
    }

    /// Segments of one kind; an empty array is host memory.
    private static func memory(_ values: [JSONValue]) throws(WorkerError) -> Memory {
        var objects: [JSONObject] = []
        for value in values {
            guard case .object(let object) = value else {
                throw MessageFrames.violation("a segment is not an object")
            }
            objects.append(object)
        }
        if objects.first?["handle"] != nil {
            return .cuda(
                try objects.map { object throws(WorkerError) in try deviceSegment(object) })
        }
        return .host(try objects.map { object throws(WorkerError) in try fileSegment(object) })
    }

    private static func fileSegment(_ object: JSONObject) throws(WorkerError) -> SegmentLocation {
        var reader = MessageReader(object)
        let path = try reader.string("path")
        let inode = try reader.integer("inode", in: 0...Int.max)
        let byteCount = try reader.integer("bytes", in: ByteCount.range)
        let dataOffset = try reader.integer("data_offset", in: ByteCount.range)
        try reader.finish()
        guard path.startsExactly(with: "/"), dataOffset <= byteCount else {
            throw MessageFrames.violation("the segment \(path) is impossible")
        }
        return SegmentLocation(
            path: path, inode: UInt64(inode), fileByteCount: byteCount, dataOffset: dataOffset)
    }

    private static func deviceSegment(_ object: JSONObject) throws(WorkerError) -> DeviceSegment {
        var reader = MessageReader(object)
        let text = try reader.string("handle")
        let byteCount = try reader.integer("bytes", in: ByteCount.range)
        let dataOffset = try reader.integer("data_offset", in: ByteCount.range)
        try reader.finish()
        guard let handle = HexText.bytes(of: text),
            handle.count == DeviceSegment.handleByteCount, dataOffset <= byteCount
        else {
            throw MessageFrames.violation("a segment of device memory is impossible")
        }
        return DeviceSegment(handle: handle, byteCount: byteCount, dataOffset: dataOffset)
    }

    /// The rows that ``body(_:)`` has written on another host; segments and offsets are that host's.
    public static func rows(of body: [UInt8]) throws(WorkerError) -> [TensorEntry] {
        try tensors(body, in: nil)
    }

    private static func tensors(_ bytes: [UInt8], in rooms: [Int]?)
        throws(WorkerError) -> [TensorEntry]
    {
        var tensors: [TensorEntry] = []
        do throws(JSONError) {
            var cursor = try JSONCursor(bytes, limits: body)
            try cursor.beginArray()
            while try cursor.nextElement() {
                guard tensors.count < tensorCountMax, let tensor = try row(&cursor, in: rooms)
                else {
                    throw JSONError(
                        .unexpectedKind, "row \(tensors.count) does not fit its segment",
                        at: cursor.byteOffset)
                }
                tensors.append(tensor)
            }
            try cursor.end()
        } catch {
            throw MessageFrames.violation("the catalog's body: \(error)")
        }
        guard ByteCount.sum(tensors.lazy.map(\.range.byteCount)) != nil else {
            throw MessageFrames.violation(
                "the catalog's tensors have more than \(ByteCount.range.upperBound) bytes together")
        }
        return tensors
    }

    /// `[name, dtype, [dimension, …], segment, offset]`; `nil` when the tensor is impossible.
    private static func row(_ cursor: inout JSONCursor, in rooms: [Int]?)
        throws(JSONError) -> TensorEntry?
    {
        try cursor.beginArray()
        guard try cursor.nextElement() else { return nil }
        let name = try cursor.readString()
        guard try cursor.nextElement() else { return nil }
        let dtype = DType(rawValue: try cursor.readString())
        guard try cursor.nextElement() else { return nil }
        var dimensions: [Int] = []
        try cursor.beginArray()
        while try cursor.nextElement() {
            guard dimensions.count < dimensionCountMax else { return nil }
            dimensions.append(try cursor.readInteger(in: 0...Int.max))
        }
        guard try cursor.nextElement() else { return nil }
        let segment = try cursor.readInteger(in: 0...tensorCountMax)
        guard try cursor.nextElement() else { return nil }
        let offset = try cursor.readInteger(in: ByteCount.range)
        guard try !cursor.nextElement(), let dtype, let shape = Shape(dimensions),
            let byteCount = shape.byteCount(of: dtype),
            let range = ByteRange(offset: offset, byteCount: byteCount),
            rooms.map({ $0.indices.contains(segment) && range.end <= $0[segment] }) ?? true
        else { return nil }
        return TensorEntry(
            name: name, dtype: dtype, shape: shape, shard: segment, range: range)
    }

    func frames() -> [[UInt8]] {
        [
            Self.header(memory, tensorCount: tensors.count, byteCount: byteCount),
            Self.body(tensors),
        ]
    }

    /// Frame 0: it differs between workers where their memory does.
    static func header(_ memory: Memory, tensorCount: Int, byteCount: Int) -> [UInt8] {
        let segments: [JSONValue] =
            switch memory {
            case .host(let segments): segments.map(value)
            case .cuda(let segments): segments.map(value)
            }
        return MessageFrames.message(
            "catalog",
            [
                ("tensors", .integer(tensorCount)), ("bytes", .integer(byteCount)),
                ("segments", .array(segments)),
            ])
    }

    /// Frame 1: the same for all workers.
    public static func body(_ tensors: [TensorEntry]) -> [UInt8] {
        var writer = JSONWriter(capacity: tensors.count * rowByteCountTypical)
        writer.beginArray()
        for tensor in tensors { write(tensor, to: &writer) }
        writer.endArray()
        return writer.bytes
    }

    private static func value(_ segment: SegmentLocation) -> JSONValue {
        .object(
            JSONObject([
                ("path", .string(segment.path)), ("inode", .integer(Int(clamping: segment.inode))),
                ("bytes", .integer(segment.fileByteCount)),
                ("data_offset", .integer(segment.dataOffset)),
            ]))
    }

    private static func value(_ segment: DeviceSegment) -> JSONValue {
        .object(
            JSONObject([
                ("handle", .string(HexText.text(of: segment.handle))),
                ("bytes", .integer(segment.byteCount)),
                ("data_offset", .integer(segment.dataOffset)),
            ]))
    }

    private static func write(_ tensor: TensorEntry, to writer: inout JSONWriter) {
        writer.beginArray()
        writer.string(tensor.name)
        writer.string(tensor.dtype.rawValue)
        writer.beginArray()
        for dimension in tensor.shape.dimensions { writer.integer(dimension) }
        writer.endArray()
        writer.integer(tensor.shard)
        writer.integer(tensor.range.offset)
        writer.endArray()
    }
}
