import CheckpointJSON
import CheckpointModel

/// The fields of one JSON object in a request, taken one by one. Those that nobody took are refused
/// in the end.
struct RequestFields {
    private var values: [ExactString: JSONValue]
    /// Names the object in messages: empty for the body itself, else `instances[0].`.
    let place: String

    init(_ object: JSONObject, place: String = "") {
        self.values = object.members
        self.place = place
    }

    private mutating func take(_ name: String) -> JSONValue? {
        values.removeValue(forKey: ExactString(name))
    }

    mutating func string(_ name: String, byteCountMax: Int) throws(ControlError) -> String {
        guard let value = take(name) else { throw missing(name, "a string") }
        return try text(value, name, byteCountMax: byteCountMax)
    }

    /// A string; absent and null are the same.
    mutating func optionalString(_ name: String, byteCountMax: Int) throws(ControlError)
        -> String?
    {
        guard let value = take(name), value != .null else { return nil }
        return try text(value, name, byteCountMax: byteCountMax)
    }

    mutating func boolean(_ name: String, default: Bool) throws(ControlError) -> Bool {
        guard let value = take(name) else { return `default` }
        guard case .bool(let flag) = value else { throw wrong(name, "true or false", value) }
        return flag
    }

    /// A count of at least one; absent and null are the same.
    mutating func optionalCount(_ name: String, max: Int) throws(ControlError) -> Int? {
        guard let value = take(name), value != .null else { return nil }
        guard case .integer(let integer) = value, let count = integer.value(in: 1...max) else {
            throw wrong(name, "an integer from 1 to \(max)", value)
        }
        return count
    }

    /// A place from zero on; absent and null are the same.
    mutating func optionalIndex(_ name: String, max: Int) throws(ControlError) -> Int? {
        guard let value = take(name), value != .null else { return nil }
        guard case .integer(let integer) = value, let index = integer.value(in: 0...max) else {
            throw wrong(name, "an integer from 0 to \(max)", value)
        }
        return index
    }

    /// A duration above zero.
    mutating func seconds(_ name: String, default: Double, max: Double) throws(ControlError)
        -> Double
    {
        guard let value = take(name) else { return `default` }
        let seconds: Double? =
            switch value {
            case .integer(let integer): integer.approximation
            case .number(let number): number
            case .null, .bool, .string, .array, .object: nil
            }
        guard let seconds, seconds > 0, seconds <= max else {
            throw wrong(name, "a number of seconds above 0 and up to \(Int(max))", value)
        }
        return seconds
    }

    /// An array of strings; it has to be there.
    mutating func strings(_ name: String, countMax: Int, byteCountMax: Int) throws(ControlError)
        -> [String]
    {
        guard let value = take(name) else {
            throw missing(name, "an array of strings")
        }
        var result: [String] = []
        for (index, element) in try array(value, name, "strings", countMax: countMax).enumerated() {
            result.append(try text(element, "\(name)[\(index)]", byteCountMax: byteCountMax))
        }
        return result
    }

    /// An array of integers of `range`; none where it is absent.
    mutating func integers(_ name: String, in range: ClosedRange<Int>, countMax: Int)
        throws(ControlError) -> [Int]
    {
        guard let value = take(name) else { return [] }
        var result: [Int] = []
        for (index, element) in try array(value, name, "integers", countMax: countMax).enumerated()
        {
            guard case .integer(let integer) = element, let value = integer.value(in: range) else {
                throw wrong(
                    "\(name)[\(index)]",
                    "an integer from \(range.lowerBound) to \(range.upperBound)", element)
            }
            result.append(value)
        }
        return result
    }

    /// An array of objects; none where it is absent.
    mutating func objects(_ name: String, countMax: Int) throws(ControlError) -> [RequestFields] {
        guard let value = take(name) else { return [] }
        var result: [RequestFields] = []
        for (index, element) in try array(value, name, "objects", countMax: countMax).enumerated() {
            guard case .object(let object) = element else {
                throw wrong("\(name)[\(index)]", "an object", element)
            }
            result.append(RequestFields(object, place: "\(place)\(name)[\(index)]."))
        }
        return result
    }

    /// Refuses what is left.
    func finish() throws(ControlError) {
        guard let name = values.keys.min()?.text else { return }
        throw .invalid(
            "the field \"\(place)\(name.prefix(100))\" is unknown here: check its spelling, or "
                + "leave it out")
    }
}
