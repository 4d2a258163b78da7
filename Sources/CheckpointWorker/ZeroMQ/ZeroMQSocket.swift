import CNative
import Glibc

/// One ZeroMQ socket. Belongs to the thread that made it; the last reference closes it.
@safe
final class ZeroMQSocket {
    enum Kind: CInt {
        case pair = 0
        case reply = 4
        case dealer = 5
    }

    /// More frames than any message of the protocol has.
    static let frameCountMax = 4
    let context: ZeroMQContext
    let handle: ZeroMQTable.Handle
    /// Receives this socket's events; lives as long as this socket at least.
    private var monitorSocket: ZeroMQSocket?
    private var table: ZeroMQTable { context.table }

    init(_ kind: Kind, context: ZeroMQContext, lingerMilliseconds: CInt) throws(WorkerError) {
        guard let handle = unsafe context.table.socketNew(context.handle, kind.rawValue) else {
            throw context.table.failure("zmq_socket", "cannot make a socket")
        }
        self.context = context
        unsafe self.handle = unsafe handle
        try setOption(CInt(CE_ZMQ_LINGER), lingerMilliseconds)
    }

    deinit {
        // The library's thread waits for ever on a monitor whose reader has gone; so the events are
        // switched off while `monitorSocket` still lives, which it does until this body ends.
        // SAFETY: the handle is used and closed once, on the thread that used it before.
        if monitorSocket != nil { _ = unsafe table.monitor(handle, nil, 0) }
        _ = unsafe table.socketClose(handle)
    }

    func setOption<Value: BitwiseCopyable>(_ option: CInt, _ value: Value) throws(WorkerError) {
        // SAFETY: the option reads as many bytes as `Value` has; callers pass the type of zmq_setsockopt(3).
        let code = unsafe withUnsafeBytes(of: value) { bytes in
            unsafe table.setOption(handle, option, bytes.baseAddress, bytes.count)
        }
        guard code == 0 else { throw table.failure("zmq_setsockopt", "option \(option)") }
    }

    func bind(_ address: String) throws(WorkerError) {
        guard unsafe table.bind(handle, address) == 0 else {
            throw table.failure("zmq_bind", "cannot bind \(address)")
        }
    }

    /// Binds the unix socket `path` in the place of the one that is bound there: whoever connects from now
    /// on comes here, what is connected stays there. `scratch` is a free path beside it.
    ///
    /// The socket that was bound first removes `path` when it is closed, so it has to stay open.
    func bind(inPlaceOf path: String, scratch: String) throws(WorkerError) {
        try bind("ipc://\(scratch)")
        // SAFETY: the bridged strings live for the call.
        guard unsafe rename(scratch, path) == 0 else {
            defer { Self.removeName(scratch) }
            throw WorkerError(
                .callFailed, "cannot bind \(path) anew: rename failed with errno \(errno)")
        }
    }

    /// Removes the name of a unix socket, if there is one.
    static func removeName(_ path: String) {
        // SAFETY: the bridged string lives for the call.
        _ = unsafe unlink(path)
    }

    /// Takes note of connections that have come by now; a message sent before that may find no peer.
    func noteConnections() throws(WorkerError) {
        var events: CInt = 0
        var length = MemoryLayout<CInt>.size
        guard unsafe table.getOption(handle, Self.eventsOption, &events, &length) == 0 else {
            throw table.failure("zmq_getsockopt", "cannot ask for connections")
        }
    }

    /// `ZMQ_EVENTS`.
    private static let eventsOption: CInt = 15

    func connect(_ address: String) throws(WorkerError) {
        guard unsafe table.connect(handle, address) == 0 else {
            throw table.failure("zmq_connect", "cannot connect to \(address)")
        }
    }

    /// A socket that receives the events of this one's connections.
    func monitor(_ address: String, events: CInt) throws(WorkerError) -> ZeroMQSocket {
        guard unsafe table.monitor(handle, address, events) == 0 else {
            throw table.failure("zmq_socket_monitor", "cannot watch \(address)")
        }
        let monitor = try ZeroMQSocket(.pair, context: context, lingerMilliseconds: 0)
        try monitor.connect(address)
        monitorSocket = monitor
        return monitor
    }

    /// Queues one message; never waits. `false`, and nothing is sent, when the peer has gone or its
    /// queue is full.
    func send(_ frames: [ZeroMQFrame], to peer: String) throws(WorkerError) -> Bool {
        for (index, frame) in frames.enumerated() {
            let more = index < frames.count - 1 ? CInt(CE_ZMQ_SNDMORE) : 0
            if unsafe frame.send(to: handle, flags: more | CInt(CE_ZMQ_DONTWAIT)) { continue }
            if index == 0, table.errorNumber() == Self.wouldBlock { return false }
            throw table.failure("zmq_msg_send", "cannot send to \(peer)")
        }
        return true
    }

    /// The next message that has arrived, frame by frame; `nil` when there is none. Never waits.
    func receive(from peer: String) throws(WorkerError) -> [[UInt8]]? {
        var frames: [[UInt8]] = []
        repeat {
            guard let frame = try receiveFrame(from: peer, isFirst: frames.isEmpty) else {
                return nil
            }
            if frames.count < Self.frameCountMax { frames.append(frame) }
        } while try hasMore(from: peer)
        return frames
    }

    /// The number of the next event of the socket that this one monitors; `nil` when there is none.
    func receiveEvent() throws(WorkerError) -> Int? {
        // The first frame has the event in 16 bits and a value in 32; the second one an address.
        while let frames = try receive(from: "the monitor") {
            if let event = frames.first, event.count == 6 {
                return Int(event[0]) | Int(event[1]) << 8
            }
        }
        return nil
    }

    private func receiveFrame(from peer: String, isFirst: Bool) throws(WorkerError) -> [UInt8]? {
        var message = ce_zmq_msg()
        _ = unsafe table.messageInit(&message)

        defer { _ = unsafe table.messageClose(&message) }
        let count = unsafe table.messageReceive(
            &message, handle, CInt(CE_ZMQ_DONTWAIT))
        guard count >= 0 else {
            if isFirst, table.errorNumber() == Self.wouldBlock { return nil }
            throw table.failure("zmq_msg_recv", "cannot receive from \(peer)")
        }
        guard let data = unsafe table.messageData(&message) else { return [] }
        // SAFETY: the message holds this many bytes until it is closed; they are copied here.
        return unsafe [UInt8](
            UnsafeRawBufferPointer(start: data, count: table.messageSize(&message)))
    }

    private static let wouldBlock: CInt = 11

    private func hasMore(from peer: String) throws(WorkerError) -> Bool {
        var more: CInt = 0
        var length = MemoryLayout<CInt>.size
        guard unsafe table.getOption(handle, CInt(CE_ZMQ_RCVMORE), &more, &length) == 0
        else { throw table.failure("zmq_getsockopt", "cannot receive from \(peer)") }
        return more != 0
    }
}
