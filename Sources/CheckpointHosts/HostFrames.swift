import NIOCore

/// Cuts the stream of one connection into messages: a 32-bit length, then a frame of so many bytes.
///
/// A header is refused before it is there when it is too long for who sends it, and a payload when the header
/// does not announce it. So what is buffered is at most what the sender may send.
struct HostFrames {
    private static let lengthByteCount = 4
    /// A header that has come, and how many bytes of payload follow it.
    private var header: (HostHeader, payloadByteCount: Int)?

    /// The next message that has come whole; `nil` where bytes are missing. A sender that is no member of the
    /// group may send short headers without payloads.
    mutating func next(_ buffer: inout ByteBuffer, isMember: Bool) throws(HostError) -> HostMessage?
    {
        if header == nil { header = try nextHeader(&buffer, isMember: isMember) }
        guard let (header, payloadByteCount) = header,
            let payload = buffer.readBytes(length: payloadByteCount)
        else { return nil }
        self.header = nil
        return header.message(payload)
    }

    private func nextHeader(_ buffer: inout ByteBuffer, isMember: Bool) throws(HostError)
        -> (HostHeader, payloadByteCount: Int)?
    {
        let start = buffer.readerIndex
        guard let frame = buffer.getInteger(at: start, as: UInt32.self),
            let length = buffer.getInteger(at: start + Self.lengthByteCount, as: UInt32.self)
        else { return nil }
        let headerMax =
            isMember ? HostLimits.headerByteCountMax : HostLimits.greetingByteCountMax
        let payloadByteCount = Int(frame) - Self.lengthByteCount - Int(length)
        guard length <= headerMax, payloadByteCount >= 0, isMember || payloadByteCount == 0 else {
            throw HostError(
                .protocolViolation,
                "a host announced a header of \(length) bytes in a frame of \(frame); at most "
                    + "\(headerMax) are possible\(isMember ? "" : ", and no payload")")
        }
        let byteCount = 2 * Self.lengthByteCount + Int(length)
        guard buffer.readableBytes >= byteCount else { return nil }
        buffer.moveReaderIndex(forwardBy: 2 * Self.lengthByteCount)
        let header = try HostHeader(buffer.readBytes(length: Int(length)) ?? [])
        guard header.payloadByteCounts.contains(payloadByteCount) else {
            throw HostError(
                .protocolViolation,
                "a host announced a payload of \(payloadByteCount) bytes, which does not fit its "
                    + "message")
        }
        return (header, payloadByteCount)
    }

    /// Writes the frame of a message.
    static func write(_ message: HostMessage, to buffer: inout ByteBuffer) throws(HostError) {
        let (header, payloads) = message.parts
        let byteCount = lengthByteCount + header.count + payloads.reduce(0) { $0 + $1.count }
        guard let frame = UInt32(exactly: byteCount),
            frame <= HostLimits.frameByteCountMax + HostLimits.headerByteCountMax
        else {
            throw HostError(.invalidArgument, "a message of \(byteCount) bytes is too long")
        }
        buffer.reserveCapacity(minimumWritableBytes: lengthByteCount + byteCount)
        buffer.writeInteger(frame)
        buffer.writeInteger(UInt32(header.count))
        buffer.writeBytes(header)
        for payload in payloads { buffer.writeBytes(payload) }
    }
}
