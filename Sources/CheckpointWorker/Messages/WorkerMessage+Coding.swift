import CheckpointJSON
import CheckpointModel

extension WorkerMessage {
    private static let kinds = [
        "hello", "ready", "loaded", "released", "committed", "aborted", "error",
    ]

    /// Decodes one message, without the delimiter. Throws a protocol violation.
    public init(frames: [[UInt8]]) throws(WorkerError) {
        guard frames.count == 1 else {
            throw MessageFrames.violation("it has \(frames.count) frames instead of one")
        }
        var reader = MessageReader(try MessageFrames.object(frames))
        let type = try reader.string("type")
        switch type {
        case "hello": self = .hello(try WorkerHello(&reader))
        case "ready": self = .ready
        case "loaded":
            self = .loaded(
                index: try reader.integer("index", in: MessageFrames.places),
                byteCount: try reader.integer("bytes", in: ByteCount.range),
                microseconds: try reader.integer("micros", in: MessageFrames.microseconds))
        case "released": self = .released
        case "committed":
            self = .committed(
                microseconds: try reader.integer("micros", in: MessageFrames.microseconds))
        case "aborted": self = .aborted
        case "error": self = .error(try WorkerFailure(&reader))
        default:
            throw MessageFrames.violation(
                "its type is \(type) instead of one of " + Self.kinds.joined(separator: ", "))
        }
        try reader.finish()
    }

    /// The one frame of the message.
    public func frame() -> [UInt8] {
        switch self {
        case .hello(let hello):
            MessageFrames.message(
                type,
                [
                    ("version", .integer(hello.version)), ("worker", .string(hello.worker)),
                    ("pid", .integer(hello.pid)), ("software", .string(hello.software)),
                    ("credits", .integer(hello.credits)),
                ])
        case .loaded(let index, let byteCount, let microseconds):
            MessageFrames.message(
                type,
                [
                    ("index", .integer(index)), ("bytes", .integer(byteCount)),
                    ("micros", .integer(microseconds)),
                ])
        case .committed(let microseconds):
            MessageFrames.message(type, [("micros", .integer(microseconds))])
        case .error(let failure):
            MessageFrames.message(
                type,
                [
                    ("stage", .string(failure.stage.rawValue)),
                    ("message", .string(failure.message)),
                    ("traceback", .string(failure.traceback)),
                ])
        case .ready, .released, .aborted:
            MessageFrames.message(type)
        }
    }
}

extension WorkerHello {
    fileprivate init(_ reader: inout MessageReader) throws(WorkerError) {
        self.init(
            version: try reader.integer("version", in: MessageFrames.places),
            worker: try reader.string("worker"),
            pid: try reader.integer("pid", in: 0...Int(Int32.max)),
            software: try reader.string("software"),
            credits: try reader.integer("credits", in: Self.creditsAllowed))
    }
}

extension WorkerFailure {
    fileprivate init(_ reader: inout MessageReader) throws(WorkerError) {
        let name = try reader.string("stage")
        guard let stage = Stage(rawValue: name) else {
            throw MessageFrames.violation(
                "it failed in the stage \(name), which is none of "
                    + Stage.allCases.map(\.rawValue).joined(separator: ", "))
        }
        self.init(
            stage: stage, message: try reader.string("message"),
            traceback: try reader.string("traceback"))
    }
}
