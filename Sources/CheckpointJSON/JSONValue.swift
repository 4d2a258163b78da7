/// Any JSON value.
public enum JSONValue: Sendable, Hashable {
    case null
    case bool(Bool)
    /// A number that is written without fraction and exponent and fits an `Int`.
    case integer(JSONInteger)
    /// Any other finite number.
    case number(Double)
    case string(String)
    case array([JSONValue])
    case object(JSONObject)

    /// An integer of our own, to be written.
    public static func integer(_ value: Int) -> JSONValue { .integer(JSONInteger(value)) }

    /// Parses a whole text: one value, with white space around it at most. Throws for syntax errors,
    /// duplicate keys and everything outside the limits.
    public static func parse(_ bytes: [UInt8], limits: JSONLimits) throws(JSONError) -> JSONValue {
        var cursor = try JSONCursor(bytes, limits: limits)
        let value = try cursor.readValue()
        try cursor.end()
        return value
    }

    /// The value as compact JSON in UTF-8.
    public func encoded() -> [UInt8] {
        var writer = JSONWriter()
        writer.value(self)
        return writer.bytes
    }

    /// The kind of the value.
    public var kind: JSONKind {
        switch self {
        case .null: .null
        case .bool: .boolean
        case .integer, .number: .number
        case .string: .string
        case .array: .array
        case .object: .object
        }
    }
}

extension JSONCursor {
    /// One value of any kind; duplicate keys are refused.
    public mutating func readValue() throws(JSONError) -> JSONValue {
        // The recursion is as deep as the containers are: the limit bounds it.
        switch try nextKind() {
        case .null:
            try readNull()
            return .null
        case .boolean: return .bool(try readBoolean())
        case .number: return try readNumberValue()
        case .string: return .string(try readString())
        case .array:
            var elements: [JSONValue] = []
            try beginArray()
            while try nextElement() { elements.append(try readValue()) }
            return .array(elements)
        case .object:
            var object = JSONObject()
            try beginObject()
            while let key = try nextKey() {
                let offset = byteOffset
                guard object.insert(key, try readValue()) else {
                    throw JSONError(
                        .duplicateKey, "the key \(JSONError.quoted(key)) stands twice in an object",
                        at: offset)
                }
            }
            return .object(object)
        }
    }

    private mutating func readNumberValue() throws(JSONError) -> JSONValue {
        let start = byteOffset
        let token = try readNumberToken()
        if token.isInteger, let integer = Int(token.text) { return .integer(JSONInteger(integer)) }
        guard let number = Double(token.text), number.isFinite else {
            throw JSONError(.numberRange, "the number \(token.text) is too large", at: start)
        }
        return .number(number)
    }
}
