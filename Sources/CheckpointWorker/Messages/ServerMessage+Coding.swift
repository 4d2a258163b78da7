import CheckpointJSON

extension ServerMessage {
    /// Decodes one message, without the delimiter. Throws a protocol violation.
    public init(frames: [[UInt8]]) throws(WorkerError) {
        var reader = MessageReader(try MessageFrames.object(frames))
        let type = try reader.string("type")
        guard frames.count == (type == "catalog" ? 2 : 1) else {
            throw MessageFrames.violation("\(type) has \(frames.count) frames")
        }
        switch type {
        case "hello": self = .hello(try ServerHello(&reader))
        case "catalog": self = .catalog(try CatalogMessage(&reader, body: frames[1]))
        case "bucket":
            self = .bucket(
                index: try reader.integer("index", in: MessageFrames.places),
                first: try reader.integer("first", in: MessageFrames.places),
                count: try reader.integer("count", in: 1...MessageFrames.places.upperBound))
        case "release": self = .release
        case "commit": self = .commit
        case "abort": self = .abort(reason: try reader.string("reason"))
        default: throw MessageFrames.violation("its type is \(type)")
        }
        try reader.finish()
    }

    /// The frames of the message.
    public func frames() -> [[UInt8]] {
        switch self {
        case .hello(let hello):
            [
                MessageFrames.message(
                    "hello",
                    [
                        ("protocol", .string(ServerHello.protocolName)),
                        ("versions", .array(hello.versions.map { .integer($0) })),
                        ("update", .string(hello.update)),
                        ("checkpoint", .string(hello.checkpoint)),
                        ("memory", .string(hello.memory.rawValue)),
                        ("deadline_ms", .integer(hello.deadlineMilliseconds)),
                    ])
            ]
        case .catalog(let catalog): catalog.frames()
        case .bucket(let index, let first, let count):
            [
                MessageFrames.message(
                    "bucket",
                    [
                        ("index", .integer(index)), ("first", .integer(first)),
                        ("count", .integer(count)),
                    ])
            ]
        case .release: [MessageFrames.message("release")]
        case .commit: [MessageFrames.message("commit")]
        case .abort(let reason): [MessageFrames.message("abort", [("reason", .string(reason))])]
        }
    }
}

extension ServerHello {
    fileprivate init(_ reader: inout MessageReader) throws(WorkerError) {
        let name = try reader.string("protocol")
        guard name == Self.protocolName else {
            throw MessageFrames.violation("it speaks \(name)")
        }
        let versions = try reader.array("versions").map { value throws(WorkerError) in
            guard case .integer(let integer) = value,
                let version = integer.value(in: MessageFrames.places)
            else { throw MessageFrames.violation("a version is no integer") }
            return version
        }
        let update = try reader.string("update")
        let checkpoint = try reader.string("checkpoint")
        let kind = try reader.string("memory")
        guard let memory = MemoryKind(rawValue: kind) else {
            throw MessageFrames.violation("its memory is \(kind)")
        }
        self.init(
            versions: versions, update: update, checkpoint: checkpoint, memory: memory,
            deadlineMilliseconds: try reader.integer("deadline_ms", in: MessageFrames.milliseconds))
    }
}
