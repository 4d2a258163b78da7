import CheckpointJSON

extension RequestFields {
    /// A string without the byte zero, which would cut it short in a system call.
    func text(_ value: JSONValue, _ name: String, byteCountMax: Int) throws(ControlError)
        -> String
    {
        guard case .string(let text) = value else { throw wrong(name, "a string", value) }
        guard (1...byteCountMax).contains(text.utf8.count), !text.utf8.contains(0) else {
            throw wrong(
                name, "a string of 1 to \(byteCountMax) bytes without the byte zero", value)
        }
        return text
    }

    /// One of the names of a closed set; absent and null are the same.
    mutating func optionalChoice<Choice>(_ name: String, _: Choice.Type) throws(ControlError)
        -> Choice?
    where Choice: CaseIterable & RawRepresentable, Choice.RawValue == String {
        guard let value = try optionalString(name, byteCountMax: 100) else { return nil }
        guard let choice = Choice(rawValue: value) else {
            throw wrong(
                name, Choice.allCases.map(\.rawValue).joined(separator: ", "), .string(value))
        }
        return choice
    }

    func array(_ value: JSONValue, _ name: String, _ kind: String, countMax: Int)
        throws(ControlError) -> [JSONValue]
    {
        guard case .array(let elements) = value else {
            throw wrong(name, "an array of \(kind)", value)
        }
        guard elements.count <= countMax else {
            throw .invalid(
                "the field \"\(place)\(name)\" has \(elements.count) entries: at most \(countMax) "
                    + "are allowed")
        }
        return elements
    }

    func missing(_ name: String, _ expected: String) -> ControlError {
        .invalid("the field \"\(place)\(name)\" is missing: expected \(expected)")
    }

    func wrong(_ name: String, _ expected: String, _ value: JSONValue) -> ControlError {
        .invalid("the field \"\(place)\(name)\": expected \(expected), got \(Self.words(value))")
    }

    /// What a value is, in words, cut to a length that fits into a message.
    static func words(_ value: JSONValue) -> String {
        switch value {
        case .null: "null"
        case .bool(let flag): "\(flag)"
        case .integer(let integer): "the integer \(integer)"
        case .number(let number): "the number \(number)"
        case .string(let text): text.isEmpty ? "an empty string" : "the string \(quoted(text))"
        case .array(let elements): "an array of \(elements.count)"
        case .object: "an object"
        }
    }

    private static func quoted(_ text: String) -> String {
        text.utf8.count <= 100
            ? String(reflecting: text) : String(reflecting: String(text.prefix(80))) + "…"
    }
}
