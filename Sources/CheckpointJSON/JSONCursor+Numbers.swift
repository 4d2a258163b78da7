/// Numbers, by the grammar of JSON: no leading zeros, no plus sign, no bare dot.
extension JSONCursor {
    /// No number that a double or an `Int` can tell apart needs more.
    static let numberByteCountMax = 400

    /// An integer of `range`. One with a fraction or an exponent is refused, and so is `-0`.
    public mutating func readInteger(in range: ClosedRange<Int>) throws(JSONError) -> Int {
        let start = byteOffset
        let value = try readInteger()
        guard range.contains(value) else {
            throw JSONError(.numberRange, JSONError.outside(range, "\(value)"), at: start)
        }
        return value
    }

    private mutating func readInteger() throws(JSONError) -> Int {
        try require(.number)
        let start = byteOffset
        let isNegative = current == ASCII.minus
        if isNegative { byteOffset += 1 }
        guard ASCII.isDigit(current) else { throw unexpected("a digit") }
        let startsWithZero = current == ASCII.zero
        let digitsStart = byteOffset
        var value = 0
        while let byte = current, ASCII.isDigit(byte) {
            let (product, overflow) = value.multipliedReportingOverflow(by: 10)
            let digit = Int(byte - ASCII.zero)
            let (sum, carry) =
                isNegative
                ? product.subtractingReportingOverflow(digit)
                : product.addingReportingOverflow(digit)
            guard !overflow, !carry else {
                throw JSONError(.numberRange, "an integer does not fit 64 bits", at: start)
            }
            value = sum
            byteOffset += 1
        }
        if startsWithZero, isNegative || byteOffset - digitsStart > 1 {
            throw JSONError(
                .syntax, "an integer starts with \(isNegative ? "-0" : "0")", at: start)
        }
        if current == ASCII.dot || current == UInt8(ascii: "e") || current == UInt8(ascii: "E") {
            throw JSONError(
                .numberRange, "expected an integer, got a number with fraction or exponent",
                at: start)
        }
        return value
    }

    /// Any finite number. One that is too small for a double becomes zero.
    public mutating func readNumber() throws(JSONError) -> Double {
        let start = byteOffset
        let token = try readNumberToken()
        guard let number = Double(token.text), number.isFinite else {
            throw JSONError(.numberRange, "the number \(token.text) is too large", at: start)
        }
        return number
    }

    /// The text of a number, and whether it is written as an integer other than `-0`.
    mutating func readNumberToken() throws(JSONError) -> (text: String, isInteger: Bool) {
        try require(.number)
        let start = byteOffset
        var isInteger = true
        if current == ASCII.minus { byteOffset += 1 }
        if current == ASCII.zero {
            byteOffset += 1
            isInteger = bytes[start] != ASCII.minus
            if ASCII.isDigit(current) {
                throw JSONError(.syntax, "a number starts with 0", at: start)
            }
        } else {
            try skipDigits()
        }
        if current == ASCII.dot {
            byteOffset += 1
            isInteger = false
            try skipDigits()
        }
        if current == UInt8(ascii: "e") || current == UInt8(ascii: "E") {
            byteOffset += 1
            isInteger = false
            if current == ASCII.plus || current == ASCII.minus { byteOffset += 1 }
            try skipDigits()
        }
        guard byteOffset - start <= Self.numberByteCountMax else {
            throw JSONError(
                .tooLong, "a number has more than \(Self.numberByteCountMax) characters", at: start)
        }
        return (String(decoding: bytes[start..<byteOffset], as: UTF8.self), isInteger)
    }

    private mutating func skipDigits() throws(JSONError) {
        guard ASCII.isDigit(current) else { throw unexpected("a digit") }
        while ASCII.isDigit(current) { byteOffset += 1 }
    }
}
