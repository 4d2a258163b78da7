import CNative

/// A ZeroMQ context: the library's I/O thread. Sockets keep their context alive; the last
/// reference ends it, which waits until what was sent has left or its linger time is over.
///
/// `@unchecked Sendable`: contexts are thread-safe by ZeroMQ's contract, and the handle never changes.
@safe
public final class ZeroMQContext: @unchecked Sendable {
    let table: ZeroMQTable
    let handle: ZeroMQTable.Handle
    /// The file or name that the library was loaded from.
    public let libraryPath: String

    /// Loads the library from the first of `libraryNames` that works and makes a context.
    public init(libraryNames: [String]) throws(WorkerError) {
        let (table, path) = try ZeroMQTable.load(from: libraryNames)
        guard let handle = unsafe table.contextNew() else {
            throw table.failure("zmq_ctx_new", "cannot make a ZeroMQ context")
        }
        self.table = table
        unsafe self.handle = unsafe handle
        self.libraryPath = path
    }

    deinit {
        // SAFETY: sockets hold a reference to the context, so all are closed by now.
        _ = unsafe table.contextTerminate(handle)
    }

    /// `4.3.5`
    public var version: String {
        var major: CInt = 0
        var minor: CInt = 0
        var patch: CInt = 0
        // SAFETY: the three numbers outlive the call.
        unsafe table.version(&major, &minor, &patch)
        return "\(major).\(minor).\(patch)"
    }
}
