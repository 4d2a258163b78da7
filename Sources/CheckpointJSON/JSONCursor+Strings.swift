/// Strings: UTF-8 is validated as a whole, after the escapes are resolved.
extension JSONCursor {
    public mutating func readString() throws(JSONError) -> String {
        try require(.string)
        let start = byteOffset + 1
        let end = plainEnd(from: start)
        guard end < bytes.count, bytes[end] == ASCII.quote else {
            return try readEscapedString(start: start, plainEnd: end)
        }
        try checkLength(end - start)
        byteOffset = end + 1
        guard let text = String(validating: bytes[start..<end], as: UTF8.self) else {
            throw invalidUTF8(start)
        }
        return text
    }

    /// The first byte at or after `start` that is not plain text.
    private func plainEnd(from start: Int) -> Int {
        let span = bytes.span
        var index = start
        while index < span.count {
            let byte = span[index]
            if byte == ASCII.quote || byte == ASCII.backslash || byte < 0x20 { break }
            index += 1
        }
        return index
    }

    private mutating func readEscapedString(start: Int, plainEnd end: Int) throws(JSONError)
        -> String
    {
        var text: [UInt8] = []
        var runStart = start
        byteOffset = end
        while true {
            text.append(contentsOf: bytes[runStart..<byteOffset])
            try checkLength(text.count)
            switch current {
            case ASCII.quote:
                byteOffset += 1
                guard let string = String(validating: text, as: UTF8.self) else {
                    throw invalidUTF8(start)
                }
                return string
            case ASCII.backslash:
                byteOffset += 1
                try appendEscaped(to: &text)
            case nil:
                throw JSONError(.syntax, "a string has no end", at: start - 1)
            case .some(let byte):
                throw JSONError(
                    .invalidString,
                    "the control character 0x\(String(byte, radix: 16)) stands in a string: it has "
                        + "to be escaped", at: byteOffset)
            }
            runStart = byteOffset
            byteOffset = plainEnd(from: runStart)
        }
    }

    /// Resolves one escape; the cursor stands behind its backslash.
    private mutating func appendEscaped(to text: inout [UInt8]) throws(JSONError) {
        guard let letter = current else { throw unexpected("an escape") }
        byteOffset += 1
        switch letter {
        case ASCII.quote, ASCII.backslash, UInt8(ascii: "/"): text.append(letter)
        case UInt8(ascii: "b"): text.append(0x08)
        case UInt8(ascii: "f"): text.append(0x0C)
        case UInt8(ascii: "n"): text.append(0x0A)
        case UInt8(ascii: "r"): text.append(0x0D)
        case UInt8(ascii: "t"): text.append(0x09)
        case UInt8(ascii: "u"): text.append(contentsOf: try readScalar().utf8)
        default:
            throw JSONError(.invalidString, "a string has an unknown escape", at: byteOffset - 1)
        }
    }

    /// The character of one `\uXXXX`, or of two that form a surrogate pair.
    private mutating func readScalar() throws(JSONError) -> Unicode.Scalar {
        let start = byteOffset
        let first = try readHex()
        if let scalar = Unicode.Scalar(first) { return scalar }
        let isPair =
            first < 0xDC00 && current == ASCII.backslash && byteOffset + 1 < bytes.count
            && bytes[byteOffset + 1] == UInt8(ascii: "u")
        guard isPair else { throw unpaired(start) }
        byteOffset += 2
        let second = try readHex()
        guard (0xDC00...0xDFFF).contains(second),
            let scalar = Unicode.Scalar(0x10000 + (first - 0xD800) << 10 + (second - 0xDC00))
        else { throw unpaired(start) }
        return scalar
    }

    private mutating func readHex() throws(JSONError) -> UInt32 {
        var value: UInt32 = 0
        for _ in 0..<4 {
            guard let digit = current.flatMap(ASCII.hexValue) else {
                throw JSONError(
                    .invalidString, "a \\u escape has fewer than four hexadecimal digits",
                    at: byteOffset)
            }
            value = value << 4 | digit
            byteOffset += 1
        }
        return value
    }

    private func unpaired(_ offset: Int) -> JSONError {
        JSONError(.invalidString, "a \\u escape is one half of a surrogate pair", at: offset)
    }

    private func invalidUTF8(_ offset: Int) -> JSONError {
        JSONError(.invalidString, "a string is not valid UTF-8", at: offset)
    }

    private func checkLength(_ byteCount: Int) throws(JSONError) {
        guard byteCount > limits.stringByteCountMax else { return }
        throw JSONError(
            .tooLong,
            "a string is longer than the \(limits.stringByteCountMax) bytes that are allowed",
            at: byteOffset)
    }
}
