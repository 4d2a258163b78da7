import CNative
import CheckpointNative

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

    /// Every worker of an update has three; the library's own limit is 1,023.
    private static let socketCountMax: CInt = 65_535
    /// The library's threads, and what they and the first socket open.
    private static let threadCount = 2
    private static let descriptorCount = 12

    /// Loads the library from the first of `libraryNames` that works, makes a context and starts its threads:
    /// the library ends the process when the system refuses it a thread or a descriptor for them later.
    public init(libraryNames: [String]) throws(WorkerError) {
        let (table, path) = try ZeroMQTable.load(from: libraryNames)
        let descriptors: DescriptorReservation
        do throws(SystemShortage) {
            try BlockingThread.check(count: Self.threadCount)
            descriptors = try Descriptors.reserve(Self.descriptorCount, for: "ZeroMQ")
        } catch {
            throw WorkerError(error)
        }
        guard let handle = unsafe table.contextNew() else {
            throw table.failure("zmq_ctx_new", "cannot make a ZeroMQ context")
        }
        self.table = table
        unsafe self.handle = unsafe handle
        self.libraryPath = path
        guard
            unsafe table.contextSet(handle, CInt(CE_ZMQ_CTX_MAX_SOCKETS), Self.socketCountMax) == 0
        else { throw table.failure("zmq_ctx_set", "cannot make a ZeroMQ context") }
        // The first socket starts the threads.
        guard let socket = unsafe table.socketNew(handle, CInt(CE_ZMQ_PAIR)) else {
            throw table.failure("zmq_socket", "cannot make a ZeroMQ context")
        }
        _ = unsafe table.socketClose(socket)
        withExtendedLifetime(descriptors) {}
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
