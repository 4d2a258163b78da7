/// The kind of a JSON value, as its first byte tells it.
public enum JSONKind: String, Sendable, Hashable {
    case null
    case boolean = "a boolean"
    case number = "a number"
    case string = "a string"
    case array = "an array"
    case object = "an object"
}
