import CheckpointModel

/// The frames that the known worker of checkpoint-engine takes over ZeroMQ, each a pickle: the
/// handle of the buffer, then lists of the tensors in it, then `None` once or twice; or a failure.
///
/// The worker's answers are no pickles, so that none is ever read here.
enum KnownFrames {
    /// All that the frames import, together with the dtypes of ``dtypes``; nothing else is ever
    /// named.
    private enum Global {
        static let rebuildTensor = PickleWriter.Global(
            module: "torch.multiprocessing.reductions", name: "rebuild_cuda_tensor")
        static let tensor = PickleWriter.Global(module: torchModule, name: "Tensor")
        static let size = PickleWriter.Global(module: torchModule, name: "Size")
        static let storage = PickleWriter.Global(module: "torch.storage", name: "TypedStorage")
        static let byte = PickleWriter.Global(module: torchModule, name: "uint8")
        static let failure = PickleWriter.Global(module: "builtins", name: "RuntimeError")
    }

    private static let torchModule = "torch"

    /// The dtypes of torch; those without one are missing.
    private static let dtypes: [DType: PickleWriter.Global] = {
        let prefix = torchModule + "."
        return DType.allCases.reduce(into: [:]) { dtypes, dtype in
            guard let name = dtype.torchName, name.hasPrefix(prefix) else { return }
            dtypes[dtype] = PickleWriter.Global(
                module: torchModule, name: String(name.dropFirst(prefix.count)))
        }
    }()

    /// The length of CUDA's handles of memory and of events.
    static let handleByteCount = 64

    private static let handleFrameByteCount = 512
    private static let rowByteCountTypical = 96

    /// The first frame: `rebuild_cuda_tensor` and its 15 arguments, for a flat tensor of
    /// `byteCount` bytes in the memory that `memoryHandle` names. `hello` is text in front, which a
    /// worker does not see.
    ///
    /// `counter` is what ``ReferenceCounterFile/export()`` gave; without one nobody learns when the
    /// worker lets go. No event goes along: all that the worker will read must be there when it is
    /// told so.
    static func handle(
        hello: [UInt8], memoryHandle: [UInt8], byteCount: Int,
        counter: (name: String, slot: Int)?
    ) -> [UInt8] {
        precondition(memoryHandle.count == handleByteCount, "a handle of memory has 64 bytes")
        var writer = PickleWriter(capacity: handleFrameByteCount + hello.count)
        writer.skippedText(hello)
        writer.global(Global.rebuildTensor)
        writer.mark()
        writer.global(Global.tensor)
        writer.global(Global.size)
        writer.tuple([byteCount])
        writer.tuple1()
        writer.reduce()
        writer.tuple([1])  // The stride.
        writer.integer(0)  // The first element, inside the storage.
        writer.global(Global.storage)
        writer.global(Global.byte)
        writer.integer(0)  // The device; the worker puts its own here.
        writer.shortBytes(memoryHandle)
        writer.integer(byteCount)
        writer.integer(0)  // The first byte, inside the allocation.
        writer.no()  // Requires no gradient.
        writer.shortBytes(Array((counter?.name ?? "").utf8))
        writer.integer(counter?.slot ?? 0)
        writer.shortBytes([UInt8](repeating: 0, count: handleByteCount))  // The event.
        writer.no()  // Waits for no event.
        writer.endTuple()
        writer.tuple2()
        writer.stop()
        return writer.bytes
    }

    /// The frame of one bucket: tensors by name, dtype, shape and the offset of their first byte in
    /// the buffer. Throws when torch has no type for a tensor.
    static func tensors(
        _ rows: [(tensor: TensorEntry, offset: Int)]
    ) throws(WorkerError) -> [UInt8] {
        var list = TensorList(capacity: (rows.count + 1) * rowByteCountTypical)
        for row in rows { try list.append(row.tensor, at: row.offset) }
        return list.end()
    }

    /// Nothing more follows. Its first coming lets the worker drop the buffer, the second one runs
    /// its hook.
    static func end() -> [UInt8] {
        var writer = PickleWriter()
        writer.none()
        writer.stop()
        return writer.bytes
    }

    /// The update has failed; the worker raises this and answers nothing.
    static func failure(_ message: String) -> [UInt8] {
        var writer = PickleWriter(capacity: message.utf8.count + rowByteCountTypical)
        writer.global(Global.failure)
        writer.string(message)
        writer.tuple1()
        writer.reduce()
        writer.stop()
        return writer.bytes
    }
}

// MARK: - The list of tensors

extension KnownFrames {
    /// Writes a list of dictionaries; what repeats in them is written once.
    private struct TensorList {
        private var writer: PickleWriter
        private var nameKey: UInt8?
        private var dtypeKey: UInt8?
        private var shapeKey: UInt8?
        private var offsetKey: UInt8?
        private var size: UInt8?
        private var dtypes: [DType: UInt8] = [:]

        init(capacity: Int) {
            writer = PickleWriter(capacity: capacity)
            writer.beginList()
        }

        mutating func append(_ tensor: TensorEntry, at offset: Int) throws(WorkerError) {
            let (dtype, dimensions) = try torchType(of: tensor)
            writer.beginDictionary()
            writer.once(&nameKey) { $0.string("name") }
            writer.string(tensor.name)
            writer.once(&dtypeKey) { $0.string("dtype") }
            writer.once(&dtypes[tensor.dtype]) { $0.global(dtype) }
            writer.once(&shapeKey) { $0.string("shape") }
            writer.once(&size) { $0.global(Global.size) }
            writer.tuple(dimensions)
            writer.tuple1()
            writer.reduce()
            writer.once(&offsetKey) { $0.string("offset") }
            writer.integer(offset)
            writer.endDictionary()
        }

        mutating func end() -> [UInt8] {
            writer.endList()
            writer.stop()
            return writer.bytes
        }
    }

    /// The dtype and the dimensions of the same bytes in torch, one element of which may hold
    /// several.
    private static func torchType(
        of tensor: TensorEntry
    ) throws(WorkerError) -> (dtype: PickleWriter.Global, dimensions: [Int]) {
        guard let dtype = dtypes[tensor.dtype] else {
            throw WorkerError(
                .invalidArgument,
                "the tensor \(tensor.name) has the type \(tensor.dtype.rawValue), and torch has "
                    + "none that holds its bits; leave it out of the checkpoint or convert it")
        }
        var dimensions = tensor.shape.dimensions
        guard tensor.dtype == .f4 else { return (dtype, dimensions) }
        guard let last = dimensions.popLast(), last % 2 == 0 else {
            throw WorkerError(
                .invalidArgument,
                "the tensor \(tensor.name) of type \(tensor.dtype.rawValue) has the shape "
                    + "\(tensor.shape), and torch packs 2 elements of the last dimension; make "
                    + "that one even or convert the tensor")
        }
        return (dtype, dimensions + [last / 2])
    }
}
