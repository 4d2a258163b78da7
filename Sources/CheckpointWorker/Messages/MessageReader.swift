import CheckpointJSON

/// Reads the fields of one message: each must be there, be of its kind and in its range, and no
/// others may be there.
struct MessageReader {
    private var reader: JSONObjectReader

    init(_ object: JSONObject) {
        reader = JSONObjectReader(object)
    }

    mutating func string(_ key: String) throws(WorkerError) -> String {
        do throws(JSONError) { return try reader.string(key) } catch { throw Self.violation(error) }
    }

    /// An integer of the wire: 0 … 2^53 - 1.
    mutating func integer(_ key: String) throws(WorkerError) -> Int {
        let value: Int
        do throws(JSONError) { value = try reader.integer(key) } catch {
            throw Self.violation(error)
        }
        guard (0...MessageFrames.integerMax).contains(value) else {
            throw MessageFrames.violation("\(key) is \(value), outside 0 to 2^53 - 1")
        }
        return value
    }

    mutating func array(_ key: String) throws(WorkerError) -> [JSONValue] {
        do throws(JSONError) { return try reader.array(key) } catch { throw Self.violation(error) }
    }

    func finish() throws(WorkerError) {
        do throws(JSONError) { try reader.finish() } catch { throw Self.violation(error) }
    }

    private static func violation(_ error: JSONError) -> WorkerError {
        MessageFrames.violation("\(error)")
    }
}
