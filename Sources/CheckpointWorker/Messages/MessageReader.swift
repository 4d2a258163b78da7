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

    mutating func integer(_ key: String, in range: ClosedRange<Int>) throws(WorkerError) -> Int {
        do throws(JSONError) { return try reader.integer(key, in: range) } catch {
            throw Self.violation(error)
        }
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
