import CNative
import CheckpointModel
import CheckpointNative

extension WorkerLink {
    /// The socket of one worker for one session, and what watches it.
    struct Lane {
        /// Frames larger than the protocol allows end the connection.
        private static let frameByteCountMax: Int64 = 1 << 20
        private static let lingerMilliseconds: CInt = 1000

        /// What one has open: its mailbox, the socket that is bound, that of the worker, the monitor's two
        /// ends, and a worker that comes in the place of another.
        private static let descriptorCount = 6

        let socket: ZeroMQSocket
        let monitor: ZeroMQSocket
        /// The worker's session, from 0.
        let session: Int
        /// How often somebody has connected to it, and has gone.
        var comeCount = 0
        var goneCount = 0

        /// Whether the worker is there, and nobody else was.
        var isTaken: Bool { comeCount == 1 && goneCount == 0 }

        /// Binds the address of the worker at `place`. A lane of a later session takes it over: the lane
        /// before keeps its connection, and has to stay open.
        init(
            _ configuration: Configuration, _ place: Int, session: Int = 0, context: ZeroMQContext
        ) throws(WorkerError) {
            let endpoint = configuration.endpoints[place]
            socket = try ZeroMQSocket(
                .dealer, context: context, lingerMilliseconds: Self.lingerMilliseconds)
            try socket.setOption(CInt(CE_ZMQ_MAXMSGSIZE), Self.frameByteCountMax)
            monitor = try socket.monitor(
                "inproc://monitor-\(configuration.update)-\(place)-\(session)",
                events: CInt(CE_ZMQ_EVENT_DISCONNECTED | CE_ZMQ_EVENT_HANDSHAKE_SUCCEEDED))
            self.session = session
            if session == 0 {
                try socket.bind(endpoint.address)
            } else {
                try socket.bind(
                    inPlaceOf: endpoint.socketPath, scratch: "\(endpoint.socketPath).\(session)")
            }
        }

        /// Descriptors for `count` lanes: ZeroMQ ends the process when the system refuses it one.
        static func reserve(_ count: Int) throws(WorkerError) -> DescriptorReservation {
            do throws(SystemShortage) {
                return try Descriptors.reserve(
                    count * descriptorCount, for: "an update of \(count) workers")
            } catch {
                throw WorkerError(error)
            }
        }

        /// Reads who has come and gone.
        mutating func readEvents() throws(WorkerError) {
            while let event = try monitor.receiveEvent() {
                if event == Int(CE_ZMQ_EVENT_HANDSHAKE_SUCCEEDED) { comeCount += 1 }
                if event == Int(CE_ZMQ_EVENT_DISCONNECTED) { goneCount += 1 }
            }
        }
    }
}
