public import CheckpointModel

/// A JSON object: its keys are unique, byte by byte, and keep their order.
public struct JSONObject: Sendable, Hashable {
    /// In the order of the text.
    public private(set) var keys: [String]
    public private(set) var members: [ExactString: JSONValue]

    /// An empty object.
    public init() {
        self.keys = []
        self.members = [:]
    }

    /// Takes keys that our own code made unique.
    public init(_ members: [(String, JSONValue)]) {
        self.init()
        for (key, value) in members {
            let isNew = insert(key, value)
            precondition(isNew, "a key stands twice in an object that our code makes")
        }
    }

    public subscript(_ key: String) -> JSONValue? { members[ExactString(key)] }

    /// Adds a member at the end; `false` when the key is taken, and then the object is of no use.
    mutating func insert(_ key: String, _ value: JSONValue) -> Bool {
        guard members.updateValue(value, forKey: ExactString(key)) == nil else { return false }
        keys.append(key)
        return true
    }
}
