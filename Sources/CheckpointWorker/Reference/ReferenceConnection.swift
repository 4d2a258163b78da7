import CNative
import FoundationEssentials
import Synchronization

/// The reference worker's end of a connection: a REP socket and what its monitor has told.
struct ReferenceConnection {
    /// The server binds before it hands out an address, so that a connection needs no long wait.
    private static let connectTimeout = Duration.seconds(5)
    private static let pollMillisecondsMax = 1000
    private static let lingerMilliseconds: CInt = 1000
    /// Makes the monitors' names unique: one that was closed keeps its name for a moment.
    private static let count = Atomic(0)

    let socket: ZeroMQSocket
    private let monitor: ZeroMQSocket
    private let address: String
    private let connectDeadline: ContinuousClock.Instant
    private var isConnected = false

    init(to address: String, context: ZeroMQContext) throws(WorkerError) {
        let path = address.hasPrefix("ipc:///") ? String(address.dropFirst("ipc://".count)) : nil
        guard path.map(FileManager.default.fileExists) ?? true else {
            throw WorkerError(.workerLost, "no server answers at \(address): the update has ended")
        }
        self.address = address
        connectDeadline = .now + Self.connectTimeout
        socket = try ZeroMQSocket(
            .reply, context: context, lingerMilliseconds: Self.lingerMilliseconds)
        let number = Self.count.wrappingAdd(1, ordering: .relaxed).newValue
        monitor = try socket.monitor(
            "inproc://reference-\(number)",
            events: CInt(CE_ZMQ_EVENT_DISCONNECTED | CE_ZMQ_EVENT_HANDSHAKE_SUCCEEDED))
        try socket.connect(address)
    }

    /// The frames of the next message. Throws at once when the connection is lost.
    mutating func receive(deadline: ContinuousClock.Instant) throws(WorkerError) -> [[UInt8]] {
        var poller = ZeroMQPoller([socket, monitor], descriptor: nil, table: socket.context.table)
        while true {
            if let frames = try socket.receive(from: address) { return frames }
            try readEvents()
            let limit = isConnected ? deadline : min(deadline, connectDeadline)
            let left = WorkerLink.milliseconds(ContinuousClock.now.duration(to: limit))
            guard left > 0 else { throw late() }
            try poller.wait(milliseconds: min(left + 1, Self.pollMillisecondsMax))
        }
    }

    private mutating func readEvents() throws(WorkerError) {
        while let event = try monitor.receiveEvent() {
            if event == Int(CE_ZMQ_EVENT_HANDSHAKE_SUCCEEDED) {
                isConnected = true
            } else if isConnected {
                throw WorkerError(.workerLost, "the connection to \(address) was lost")
            }
        }
    }

    private func late() -> WorkerError {
        isConnected
            ? WorkerError(.deadlineExceeded, "no message from \(address) before the deadline")
            : WorkerError(.workerLost, "no server answers at \(address)")
    }
}
