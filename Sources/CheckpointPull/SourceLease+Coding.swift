public import CheckpointJSON
import CheckpointModel
import CheckpointPlan

/// The JSON of `docs/http-api.md`, written by a source and read by whoever reads from it.
extension LeaseState {
    static let readerCountMax = 1024
    public static let endpointCountMax = 64
    private static let runCountMax = 1 << 20

    func write(_ writer: inout JSONWriter) {
        writer.key("expires_in")
        writer.number(secondsLeft)
        writer.key("active")
        writer.boolean(isActive)
        writer.key("readers")
        writer.beginArray()
        for reader in readers { writer.string(reader) }
        writer.endArray()
        writer.key("arrived")
        if let arrived {
            writer.beginArray()
            for run in arrived {
                writer.beginArray()
                writer.integer(run.lowerBound)
                writer.integer(run.count)
                writer.endArray()
            }
            writer.endArray()
        } else {
            writer.null()
        }
        writer.key("content")
        if let content { writer.string(content) } else { writer.null() }
        writer.key("endpoints")
        writer.beginArray()
        for endpoint in endpoints { endpoint.write(&writer) }
        writer.endArray()
    }

    /// The answer to a renewal.
    public func encoded() -> [UInt8] {
        var writer = JSONWriter()
        writer.beginObject()
        write(&writer)
        writer.endObject()
        return writer.bytes
    }

    /// Reads the answer to a renewal.
    public init(_ bytes: [UInt8]) throws(JSONError) {
        var reader = try LeaseText.reader(bytes)
        try self.init(&reader)
        try reader.finish()
    }

    init(_ reader: inout JSONObjectReader) throws(JSONError) {
        let left = try reader.value("expires_in")
        switch left {
        case .integer(let seconds) where seconds.approximation >= 0:
            secondsLeft = seconds.approximation
        case .number(let seconds) where seconds >= 0: secondsLeft = seconds
        default: throw LeaseText.wrong("expires_in", "seconds from 0 on")
        }
        isActive = try reader.boolean("active")
        readers = try reader.array("readers").map { value throws(JSONError) in
            guard case .string(let text) = value else { throw LeaseText.wrong("readers", "URLs") }
            return text
        }
        arrived = try Self.runs(try reader.value("arrived"))
        content = try LeaseText.content(try reader.value("content"))
        endpoints = try reader.array("endpoints").map { value throws(JSONError) in
            guard case .object(let object) = value else {
                throw LeaseText.wrong("endpoints", "objects")
            }
            return try SourceEndpoint(object)
        }
        guard (1...Self.endpointCountMax).contains(endpoints.count) else {
            throw LeaseText.wrong("endpoints", "1 to \(Self.endpointCountMax) of them")
        }
        guard readers.count <= Self.readerCountMax else {
            throw LeaseText.wrong("readers", "at most \(Self.readerCountMax) URLs")
        }
    }

    private static func runs(_ value: JSONValue) throws(JSONError) -> [Range<Int>]? {
        if value == .null { return nil }
        guard case .array(let elements) = value, elements.count <= runCountMax else {
            throw LeaseText.wrong("arrived", "runs of chunks or null")
        }
        var end = 0
        return try elements.map { element throws(JSONError) in
            // One behind the other, so that together they are no longer than the order.
            guard case .array(let pair) = element, pair.count == 2,
                case .integer(let place) = pair[0], case .integer(let length) = pair[1],
                let first = place.value(in: end...max(end, ChunkGrid.countMax)),
                let count = length.value(in: 1...ChunkGrid.countMax)
            else { throw LeaseText.wrong("arrived", "pairs of a place and a count that rise") }
            end = first + count
            return first..<end
        }
    }
}

extension SourceEndpoint {
    fileprivate func write(_ writer: inout JSONWriter) {
        writer.beginObject()
        writer.key("session")
        writer.string(session)
        writer.key("addresses")
        writer.beginArray()
        for address in addresses { writer.integer(Int(bitPattern: address)) }
        writer.endArray()
        writer.endObject()
    }

    fileprivate init(_ object: JSONObject) throws(JSONError) {
        var reader = JSONObjectReader(object)
        session = try reader.string("session")
        addresses = try reader.array("addresses").map { value throws(JSONError) in
            guard case .integer(let integer) = value,
                let address = integer.value(in: SourceEndpoint.addressRange)
            else { throw LeaseText.wrong("addresses", "addresses") }
            return UInt(address)
        }
        try reader.finish()
    }
}

extension SourceLease {
    private static let shardCountMax = 1 << 20

    /// The answer that begins a lease.
    public func encoded() -> [UInt8] {
        var writer = JSONWriter()
        writer.beginObject()
        writer.key("version")
        writer.integer(Self.version)
        writer.key("lease")
        writer.string(id)
        writer.key("incarnation")
        writer.string(incarnation)
        writer.key("digest")
        writer.string(digest)
        writer.key("chunk_bytes")
        writer.integer(chunkByteCount)
        writer.key("shard_bytes")
        writer.beginArray()
        for count in shardByteCounts { writer.integer(count) }
        writer.endArray()
        state.write(&writer)
        writer.endObject()
        return writer.bytes
    }

    /// Reads it.
    public init(_ bytes: [UInt8]) throws(JSONError) {
        var reader = try LeaseText.reader(bytes)
        guard try reader.integer("version", in: 0...Int.max) == Self.version else {
            throw LeaseText.wrong("version", "\(Self.version)")
        }
        id = try reader.string("lease")
        incarnation = try reader.string("incarnation")
        digest = try reader.string("digest")
        chunkByteCount = try reader.integer("chunk_bytes", in: ChunkGrid.chunkByteCountRange)
        shardByteCounts = try reader.array("shard_bytes").map { value throws(JSONError) in
            guard case .integer(let integer) = value,
                let count = integer.value(in: ByteCount.range)
            else { throw LeaseText.wrong("shard_bytes", "byte counts") }
            return count
        }
        state = try LeaseState(&reader)
        try reader.finish()
        guard state.names(shardByteCounts.count), shardByteCounts.count <= Self.shardCountMax,
            !id.isEmpty,
            id.utf8.allSatisfy(LeaseText.isAllowedInID)
        else { throw LeaseText.wrong("lease", "a lease with one address for each shard") }
    }
}

/// What the texts of leases have in common.
private enum LeaseText {
    static let limits = JSONLimits(
        byteCountMax: 64 << 20, depthMax: 5, stringByteCountMax: 64 << 10)

    static func reader(_ bytes: [UInt8]) throws(JSONError) -> JSONObjectReader {
        guard case .object(let object) = try JSONValue.parse(bytes, limits: limits) else {
            throw JSONError(.unexpectedKind, "the answer is not an object")
        }
        return JSONObjectReader(object)
    }

    /// Letters, digits and dashes: a lease's name is a part of paths.
    static func isAllowedInID(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"):
            true
        default: false
        }
    }

    private static let contentByteCountMax = 128

    static func content(_ value: JSONValue) throws(JSONError) -> String? {
        switch value {
        case .null: return nil
        case .string(let text)
        where (1...contentByteCountMax).contains(text.utf8.count)
            && text.utf8.allSatisfy(isAllowedInID):
            return text
        default: throw wrong("content", "a digest or null")
        }
    }

    static func wrong(_ key: String, _ expected: String) -> JSONError {
        JSONError(.unexpectedKind, "the key \(key): expected \(expected)")
    }
}
