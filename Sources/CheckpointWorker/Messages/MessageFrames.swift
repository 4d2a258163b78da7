import CheckpointJSON

/// What all messages share: one JSON object in frame 0, and limits.
enum MessageFrames {
    /// Places, counts and versions: far more than there are tensors.
    static let places = 0...(1 << 31)
    /// How long something took, or may take: a month at most, so that the sum over all buckets of an update
    /// fits an `Int`.
    static let milliseconds = 0...(31 * 86_400_000)
    static let microseconds = 0...(31 * 86_400_000_000)
    static let header = JSONLimits(
        byteCountMax: 1 << 20, depthMax: 4, stringByteCountMax: 256 << 10)

    /// Frame 0 as an object; `frames` must be one, or two where a body is there.
    static func object(_ frames: [[UInt8]]) throws(WorkerError) -> JSONObject {
        guard let first = frames.first, frames.count <= 2 else {
            throw violation("it has \(frames.count) frames")
        }
        let value: JSONValue
        do throws(JSONError) {
            value = try JSONValue.parse(first, limits: header)
        } catch {
            throw violation("\(error)")
        }
        guard case .object(let object) = value else { throw violation("it is not an object") }
        return object
    }

    static func violation(_ why: String) -> WorkerError {
        WorkerError(.protocolViolation, why)
    }

    static func message(_ type: String, _ fields: [(String, JSONValue)] = []) -> [UInt8] {
        JSONValue.object(JSONObject([("type", .string(type))] + fields)).encoded()
    }
}
