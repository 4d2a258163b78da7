/// Writes compact JSON, the canonical form of `docs/wire-protocol.md`: no white space, keys in the
/// order of the calls, only quotes, backslashes and control characters escaped.
///
/// Commas and colons come by themselves. That begins and ends match is the caller's duty.
public struct JSONWriter: Sendable {
    /// What was written so far, in UTF-8.
    public private(set) var bytes: [UInt8] = []
    private var needsComma = false

    /// Starts empty, with room for `capacity` bytes.
    public init(capacity: Int = 0) {
        bytes.reserveCapacity(capacity)
    }

    public mutating func beginObject() { open(ASCII.openBrace) }
    public mutating func endObject() { close(ASCII.closeBrace) }
    public mutating func beginArray() { open(ASCII.openBracket) }
    public mutating func endArray() { close(ASCII.closeBracket) }

    /// The key of the value that is written next.
    public mutating func key(_ key: String) {
        separate()
        quote(key)
        bytes.append(ASCII.colon)
        needsComma = false
    }

    public mutating func string(_ value: String) {
        separate()
        quote(value)
    }

    public mutating func integer(_ value: Int) {
        separate()
        bytes.append(contentsOf: String(value).utf8)
    }

    /// A number that is not finite is written as null: JSON has no word for it.
    public mutating func number(_ value: Double) {
        separate()
        bytes.append(contentsOf: (value.isFinite ? value.description : "null").utf8)
    }

    public mutating func boolean(_ value: Bool) {
        separate()
        bytes.append(contentsOf: (value ? "true" : "false").utf8)
    }

    public mutating func null() {
        separate()
        bytes.append(contentsOf: "null".utf8)
    }

    /// A value with all that is in it.
    public mutating func value(_ value: JSONValue) {
        switch value {
        case .null: null()
        case .bool(let flag): boolean(flag)
        case .integer(let integer): integer.write(to: &self)
        case .number(let number): self.number(number)
        case .string(let text): string(text)
        case .array(let elements):
            beginArray()
            for element in elements { self.value(element) }
            endArray()
        case .object(let object):
            beginObject()
            for key in object.keys {
                self.key(key)
                self.value(object[key] ?? .null)
            }
            endObject()
        }
    }
}

// MARK: - Tokens

extension JSONWriter {
    private static let hexDigits = Array("0123456789abcdef".utf8)

    private mutating func separate() {
        if needsComma { bytes.append(ASCII.comma) }
        needsComma = true
    }

    private mutating func open(_ byte: UInt8) {
        separate()
        bytes.append(byte)
        needsComma = false
    }

    private mutating func close(_ byte: UInt8) {
        bytes.append(byte)
        needsComma = true
    }

    private mutating func quote(_ text: String) {
        bytes.append(ASCII.quote)
        let isPlain = text.utf8.allSatisfy { byte in
            byte >= 0x20 && byte != ASCII.quote && byte != ASCII.backslash
        }
        if isPlain {
            bytes.append(contentsOf: text.utf8)
        } else {
            for byte in text.utf8 { escape(byte) }
        }
        bytes.append(ASCII.quote)
    }

    private mutating func escape(_ byte: UInt8) {
        switch byte {
        case ASCII.quote, ASCII.backslash: bytes += [ASCII.backslash, byte]
        case 0x08: bytes += [ASCII.backslash, UInt8(ascii: "b")]
        case 0x0C: bytes += [ASCII.backslash, UInt8(ascii: "f")]
        case 0x0A: bytes += [ASCII.backslash, UInt8(ascii: "n")]
        case 0x0D: bytes += [ASCII.backslash, UInt8(ascii: "r")]
        case 0x09: bytes += [ASCII.backslash, UInt8(ascii: "t")]
        case 0..<0x20:
            bytes.append(contentsOf: "\\u00".utf8)
            bytes.append(Self.hexDigits[Int(byte >> 4)])
            bytes.append(Self.hexDigits[Int(byte & 15)])
        default: bytes.append(byte)
        }
    }
}
