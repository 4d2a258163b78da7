import CNative

/// Waits until one of several sockets or a file descriptor has something to read.
@safe
struct ZeroMQPoller {
    private let table: ZeroMQTable
    private let sockets: [ZeroMQSocket]
    private var items: [ce_zmq_pollitem]

    /// `descriptor` is watched beside the sockets.
    init(_ sockets: [ZeroMQSocket], descriptor: CInt?, table: ZeroMQTable) {
        self.table = table
        self.sockets = sockets
        let readable = Int16(CE_ZMQ_POLLIN)
        // SAFETY: `sockets` keeps the handles open as long as the poller lives.
        var items = unsafe sockets.map { socket in
            unsafe ce_zmq_pollitem(socket: socket.handle, fd: 0, events: readable, revents: 0)
        }
        if let descriptor {
            unsafe items.append(
                ce_zmq_pollitem(socket: nil, fd: descriptor, events: readable, revents: 0))
        }
        unsafe self.items = items
    }

    /// Returns when something can be read, or after the given time; also after a signal.
    mutating func wait(milliseconds: Int) throws(WorkerError) {
        let count = CInt(unsafe items.count)
        // SAFETY: the library writes to the `count` items during the call only.
        let code = unsafe items.withUnsafeMutableBufferPointer { items in
            unsafe table.poll(items.baseAddress, count, CLong(milliseconds))
        }
        let interrupted: CInt = 4
        if code < 0, table.errorNumber() != interrupted {
            throw table.failure("zmq_poll", "cannot wait for workers")
        }
    }
}
