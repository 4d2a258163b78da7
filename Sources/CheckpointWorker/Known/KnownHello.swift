/// The hello in front of the known protocol's first frame: a text that its pickle pushes and drops
/// (`PROTO 4`, `BINUNICODE`, `POP`). Nothing behind the text is read.
enum KnownHello {
    private static let start: [UInt8] = [0x80, 0x04, 0x58]
    private static let lengthByteCount = 4
    private static let pop = UInt8(ascii: "0")
    private static let opening = Array(#"{"type":"hello""#.utf8)
    private static let byteCountMax = 1 << 20

    /// The frame of the hello; `nil` where `frame` has none in front.
    static func frame(in frame: [UInt8]) -> [UInt8]? {
        let head = start.count + lengthByteCount
        guard frame.count > head, frame.starts(with: start) else { return nil }
        let length = frame[start.count..<head].reversed().reduce(0) { $0 << 8 | Int($1) }
        guard length <= byteCountMax, frame.count > head + length, frame[head + length] == pop
        else { return nil }
        let text = frame[head..<(head + length)]
        return text.starts(with: opening) ? Array(text) : nil
    }
}
