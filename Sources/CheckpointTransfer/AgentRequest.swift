import CheckpointJSON
import CheckpointModel

/// A request to the agent: the JSON of its line, all but the number, which the connection gives.
struct AgentRequest: Sendable {
    /// What the agent is asked for; an answer is checked against it.
    enum Operation: Sendable, Hashable {
        case map
        case unmap
        case read
        case ping
    }

    /// More ranges than a batch is ever made of; the line stays under a few MiB.
    static let rangeCountMax = 1 << 16

    let operation: Operation
    /// Names the request in errors: "mapping /dev/shm/x".
    let title: String
    private let members: [UInt8]

    /// The whole line, with its line feed.
    func line(id: Int) -> [UInt8] {
        var line = Array("{\"id\":\(id),".utf8)
        line.reserveCapacity(line.count + members.count)
        line += members.dropFirst()
        line.append(UInt8(ascii: "\n"))
        return line
    }

    static func map(_ mapping: TransferMapping) throws(TransferError) -> AgentRequest {
        let title = "mapping \(JSONError.quoted(mapping.path))"
        guard mapping.byteCount > 0, let inode = Int(exactly: mapping.inode) else {
            throw TransferError(
                .failed,
                "\(title): \(mapping.byteCount) bytes of inode \(mapping.inode) are no file")
        }
        return AgentRequest(.map, title) { writer in
            writer.key("op")
            writer.string("map")
            writer.key("path")
            writer.string(mapping.path)
            writer.key("inode")
            writer.integer(inode)
            writer.key("bytes")
            writer.integer(mapping.byteCount)
            writer.key("writable")
            writer.boolean(mapping.isWritable)
        }
    }

    static func unmap(_ address: UInt) throws(TransferError) -> AgentRequest {
        let title = "unmapping the memory at \(address)"
        guard let address = Int(exactly: address) else {
            throw TransferError(.failed, "\(title): it is no address")
        }
        return AgentRequest(.unmap, title) { writer in
            writer.key("op")
            writer.string("unmap")
            writer.key("address")
            writer.integer(address)
        }
    }

    static func read(from session: String, _ ranges: [TransferRange]) throws(TransferError)
        -> AgentRequest
    {
        guard (try? NetworkAddress(session)) != nil else {
            throw TransferError(
                .failed, "reading from \(JSONError.quoted(session)): it is not host:port")
        }
        guard !ranges.isEmpty, ranges.count <= rangeCountMax else {
            throw TransferError(
                .failed,
                "reading from \(session): \(ranges.count) ranges; 1 to \(rangeCountMax) go at once")
        }
        var byteCount = 0
        for range in ranges {
            guard range.isInAddressSpace else {
                throw TransferError(
                    .failed,
                    "reading from \(session): \(range.byteCount) bytes at \(range.remote) for "
                        + "\(range.local) are no range")
            }
            byteCount = byteCount.addingReportingOverflow(range.byteCount).partialValue
        }
        let title = "reading \(byteCount) bytes in \(ranges.count) ranges from \(session)"
        return AgentRequest(.read, title, capacity: 128 + 44 * ranges.count) { writer in
            writer.key("op")
            writer.string("read")
            writer.key("session")
            writer.string(session)
            writer.key("ranges")
            writer.beginArray()
            for range in ranges {
                writer.beginArray()
                writer.integer(Int(range.local))
                writer.integer(Int(range.remote))
                writer.integer(range.byteCount)
                writer.endArray()
            }
            writer.endArray()
        }
    }

    static var ping: AgentRequest {
        AgentRequest(.ping, "a ping") { writer in
            writer.key("op")
            writer.string("ping")
        }
    }

    private init(
        _ operation: Operation, _ title: String, capacity: Int = 256,
        _ write: (inout JSONWriter) -> Void
    ) {
        var writer = JSONWriter(capacity: capacity)
        writer.beginObject()
        write(&writer)
        writer.endObject()
        self.operation = operation
        self.title = title
        self.members = writer.bytes
    }
}

extension TransferRange {
    /// Whether both ends are addresses, neither wraps around, and there is something to read.
    var isInAddressSpace: Bool {
        guard byteCount > 0, let local = Int(exactly: local), let remote = Int(exactly: remote)
        else { return false }
        return local > 0 && remote > 0 && !local.addingReportingOverflow(byteCount).overflow
            && !remote.addingReportingOverflow(byteCount).overflow
    }
}
