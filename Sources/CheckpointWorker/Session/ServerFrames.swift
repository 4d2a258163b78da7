import CheckpointModel

/// Writes what the server says as frames, in the protocol that the worker speaks.
struct ServerFrames {
    let memory: WorkerMemory
    let schedule: DeliverySchedule
    let tensors: [TensorEntry]
    /// Tells when a worker has let go of its memory.
    let counters: ReferenceCounterFile?
    /// The body of the catalog, where it is known already.
    let knownBody: [UInt8]?
    private let byteCount: Int
    private var catalogBody: ZeroMQFrame?

    init(
        memory: WorkerMemory, schedule: DeliverySchedule, tensors: [TensorEntry],
        counters: ReferenceCounterFile?, knownBody: [UInt8]? = nil
    ) {
        self.memory = memory
        self.schedule = schedule
        self.tensors = tensors
        self.counters = counters
        self.knownBody = knownBody
        self.byteCount = tensors.reduce(0) { $0 + $1.range.byteCount }
    }

    /// The first message. In device memory it is a frame of the known protocol, whose workers find their
    /// handle in it, around the hello that ours look for.
    func hello(_ hello: ServerHello, to worker: Int) throws(WorkerError) -> [[UInt8]] {
        let frames = ServerMessage.hello(hello).frames()
        guard case .cuda(let rings) = memory, let first = frames.first else { return frames }
        return [
            KnownFrames.handle(
                hello: first, memoryHandle: rings[worker].handle,
                byteCount: rings[worker].byteCount, counter: try counters?.export())
        ]
    }

    /// The catalog: a head for each worker, and a body that is encoded once.
    mutating func catalog(to worker: Int, table: ZeroMQTable) throws(WorkerError)
        -> [ZeroMQFrame]
    {
        let body: ZeroMQFrame
        if let known = catalogBody {
            body = known
        } else {
            body = try ZeroMQFrame(knownBody ?? CatalogMessage.body(tensors), table: table)
        }
        catalogBody = body
        let header = CatalogMessage.header(
            memory.catalog(for: worker), tensorCount: tensors.count, byteCount: byteCount)
        return [try ZeroMQFrame(header, table: table), body]
    }

    mutating func dropCatalog() { catalogBody = nil }

    /// A message to a worker of the known protocol.
    func known(_ message: ServerMessage) throws(WorkerError) -> [UInt8] {
        switch message {
        case .bucket(_, let first, let count):
            return try KnownFrames.tensors(
                tensors[first..<(first + count)].map { (tensor: $0, offset: $0.range.offset) })
        case .abort(let reason): return KnownFrames.failure(reason)
        case .release, .commit, .hello, .catalog: return KnownFrames.end()
        }
    }
}
