/// Cuts what comes through a pipe into lines. A line that is too long comes in pieces, so that no
/// writer can make this grow.
struct LineSplitter {
    private static let lineFeed = UInt8(ascii: "\n")

    /// The most bytes of a line or piece.
    let byteCountMax: Int
    private var rest: [UInt8] = []

    init(byteCountMax: Int) {
        precondition(byteCountMax > 0, "a line has at least one byte")
        self.byteCountMax = byteCountMax
    }

    /// The lines that end in `bytes`, without their line feeds; what is after them is kept.
    mutating func lines(in bytes: [UInt8]) -> [[UInt8]] {
        var lines: [[UInt8]] = []
        var remaining = bytes[...]
        while let end = remaining.firstIndex(of: Self.lineFeed) {
            append(remaining[..<end], to: &lines)
            lines.append(takeRest())
            remaining = remaining[(end + 1)...]
        }
        append(remaining, to: &lines)
        return lines
    }

    /// What came after the last line feed, when no more comes.
    mutating func takeRest() -> [UInt8] {
        defer { rest = [] }
        return rest
    }

    private mutating func append(_ bytes: ArraySlice<UInt8>, to lines: inout [[UInt8]]) {
        var bytes = bytes
        while rest.count + bytes.count > byteCountMax {
            let piece = bytes.prefix(byteCountMax - rest.count)
            rest += piece
            lines.append(takeRest())
            bytes = bytes.dropFirst(piece.count)
        }
        rest += bytes
    }
}
