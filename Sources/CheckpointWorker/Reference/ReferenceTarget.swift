/// What a reference worker puts weights in: its slice of every tensor. Used by one thread at a time.
public protocol ReferenceTarget: AnyObject {
    /// The kind of memory that it takes weights from.
    var source: MemoryKind { get }
    /// Where the slices lie; `nil` before the first catalog.
    var layout: ReferenceLayout? { get }

    /// Opens the server's memory and lays out the parameters.
    func open(_ catalog: CatalogMessage) throws(WorkerError)

    /// Copies the slices of the given tensors; returns the bytes of the whole tensors. The server's
    /// memory is not read any more when it returns.
    func load(_ range: Range<Int>) throws(WorkerError) -> Int

    /// Ends the use of the server's memory.
    func release()

    /// Lets go of everything that is the server's, after a failure.
    func drop()

    /// Lets go of what was kept for the next update and is of no use any more. To be called every
    /// second or so between updates.
    func dropStale()

    /// Overwrites all parameters, so that a comparison tells what an update has brought.
    func fill(_ byte: UInt8) throws(WorkerError)

    /// A reader of the parameters for each of `count` threads.
    func readers(_ count: Int) throws(WorkerError) -> [any ReferenceReader]
}

/// Reads the parameters of a target, on one thread at a time.
public protocol ReferenceReader: Sendable {
    /// Calls `body` with the bytes from `offset` on; they are there for as long as the call lasts.
    func read(at offset: Int, byteCount: Int, _ body: (Span<UInt8>) -> Void) throws(WorkerError)
}
