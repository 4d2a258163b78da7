import CNative

/// One frame in ZeroMQ's memory that can be sent to several peers without a copy.
///
/// Used on one thread at a time.
@safe
final class ZeroMQFrame {
    private let table: ZeroMQTable
    private var message = ce_zmq_msg()

    init(_ bytes: [UInt8], table: ZeroMQTable) throws(WorkerError) {
        self.table = table
        guard unsafe table.messageInitSize(&message, bytes.count) == 0 else {
            throw table.failure("zmq_msg_init_size", "no memory for \(bytes.count) bytes")
        }
        guard let target = unsafe table.messageData(&message) else { return }
        // SAFETY: the message was made with exactly this many bytes.
        unsafe bytes.withUnsafeBytes { source in
            if let base = source.baseAddress {
                unsafe target.copyMemory(from: base, byteCount: source.count)
            }
        }
    }

    deinit {
        // SAFETY: the message was initialised in `init` and is closed once.
        _ = unsafe table.messageClose(&message)
    }

    /// Hands a reference to the frame's bytes to `socket`; `false` when its queue is full.
    func send(to socket: ZeroMQTable.Handle, flags: CInt) -> Bool {
        var copy = ce_zmq_msg()
        // SAFETY: `copy` is initialised before use; a successful send takes it over, a failed one leaves it.
        _ = unsafe table.messageInit(&copy)
        guard unsafe table.messageCopy(&copy, &message) == 0,
            unsafe table.messageSend(&copy, socket, flags) >= 0
        else {
            _ = unsafe table.messageClose(&copy)
            return false
        }
        return true
    }
}
