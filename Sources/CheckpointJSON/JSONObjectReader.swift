import CheckpointModel

/// Takes the members of one object by key and kind; each has to be there, and no others.
///
///     var reader = JSONObjectReader(object)
///     let path = try reader.string("path")
///     try reader.finish()
public struct JSONObjectReader: Sendable {
    private let object: JSONObject
    private var unread: Set<ExactString>

    public init(_ object: JSONObject) {
        self.object = object
        self.unread = Set(object.members.keys)
    }

    public mutating func string(_ key: String) throws(JSONError) -> String {
        guard case .string(let value) = try value(key) else { throw wrong(key, "a string") }
        return value
    }

    /// An integer of `range`, which the caller chooses so that what it does with the number fits an `Int`.
    public mutating func integer(_ key: String, in range: ClosedRange<Int>) throws(JSONError) -> Int
    {
        guard case .integer(let integer) = try value(key) else { throw wrong(key, "an integer") }
        guard let value = integer.value(in: range) else {
            throw JSONError(
                .numberRange,
                "the key \(JSONError.quoted(key)): \(JSONError.outside(range, integer.description))"
            )
        }
        return value
    }

    public mutating func boolean(_ key: String) throws(JSONError) -> Bool {
        guard case .bool(let value) = try value(key) else { throw wrong(key, "a boolean") }
        return value
    }

    public mutating func array(_ key: String) throws(JSONError) -> [JSONValue] {
        guard case .array(let value) = try value(key) else { throw wrong(key, "an array") }
        return value
    }

    public mutating func object(_ key: String) throws(JSONError) -> JSONObject {
        guard case .object(let value) = try value(key) else { throw wrong(key, "an object") }
        return value
    }

    /// A member of any kind.
    public mutating func value(_ key: String) throws(JSONError) -> JSONValue {
        guard let value = object[key] else {
            throw JSONError(.missingKey, "the key \(JSONError.quoted(key)) is missing")
        }
        unread.remove(ExactString(key))
        return value
    }

    /// Refuses members that were not read.
    public func finish() throws(JSONError) {
        guard let key = unread.min()?.text else { return }
        throw JSONError(.additionalKey, "the key \(JSONError.quoted(key)) is not known here")
    }

    private func wrong(_ key: String, _ expected: String) -> JSONError {
        let got: String =
            switch object[key] {
            case .number(let number): "the number \(number)"
            case .some(let value): value.kind.rawValue
            case nil: "nothing"
            }
        return JSONError(
            .unexpectedKind, "the key \(JSONError.quoted(key)): expected \(expected), got \(got)")
    }
}
