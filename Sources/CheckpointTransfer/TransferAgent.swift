public import Logging

/// A process that reads the memory of other hosts into memory of this one.
///
/// It is the child of this process and ends with it. An owner calls ``stop()``; one that is dropped
/// without is killed. All calls may be made at once and from anywhere.
public final class TransferAgent: Sendable {
    /// For a request that moves no bytes.
    public static let requestTimeout = Duration.seconds(30)

    /// The name under which agents of other hosts reach it, "host:port".
    public let session: String
    /// What carries the bytes: "tcp" or "rdma".
    public let protocolName: String
    /// The RDMA devices in use.
    public let devices: [String]
    /// The version of the library that transfers.
    public let version: String
    public let processID: Int32
    private let connection: AgentConnection

    private init(
        _ connection: AgentConnection, _ ready: AgentMessage.Ready, processID: Int32
    ) {
        self.connection = connection
        self.session = ready.session
        self.protocolName = ready.protocolName
        self.devices = ready.devices
        self.version = ready.version
        self.processID = processID
    }

    deinit { connection.abandon() }

    /// Starts an agent, and returns when it is ready. Throws, and leaves nothing behind, when there
    /// is no program or library (`missing`), it is not ready in time (`timedOut`), it does not
    /// speak the protocol (`failed`), or the task is cancelled.
    public static func start(
        _ configuration: AgentConfiguration, logger: Logger
    ) async throws(TransferError) -> TransferAgent {
        let connection = AgentConnection(configuration, logger: logger)
        let ready = try await connection.start()
        guard let processID = connection.processID else {
            preconditionFailure("a process that has written a line has an id")
        }
        return TransferAgent(connection, ready, processID: processID)
    }

    /// Maps a whole file; returns its address in the agent. The file's inode and
    /// length have to be those of the mapping.
    public func map(
        _ mapping: TransferMapping, timeout: Duration = requestTimeout
    ) async throws(TransferError) -> UInt {
        let answer = try await connection.ask(try .map(mapping), timeout: timeout)
        guard let address = answer.address else {
            preconditionFailure("the connection checks that an answer fits its request")
        }
        return address
    }

    /// Lets go what ``map(_:timeout:)`` mapped at an address.
    public func unmap(
        _ address: UInt, timeout: Duration = requestTimeout
    ) async throws(TransferError) {
        _ = try await connection.ask(try .unmap(address), timeout: timeout)
    }

    /// Reads ranges out of the memory of another agent; returns how long the transfer took there.
    ///
    /// Reads from one session begin in the order of the calls, and flow into one another. An agent cannot end a transfer: after
    /// `timedOut` and `cancelled` it may still write to the local ranges, until
    /// ``waitForReads(timeout:)`` or ``kill()`` has returned true.
    public func read(
        from session: String, _ ranges: [TransferRange], timeout: Duration
    ) async throws(TransferError) -> Duration {
        // The text of thousands of ranges is made here, and not while the connection is held.
        let request = try AgentRequest.read(from: session, ranges)
        let answer = try await connection.ask(request, timeout: timeout)
        guard let seconds = answer.seconds else {
            preconditionFailure("the connection checks that an answer fits its request")
        }
        return .seconds(seconds)
    }

    /// Asks for a sign of life.
    public func ping(timeout: Duration = .seconds(5)) async throws(TransferError) {
        _ = try await connection.ask(.ping, timeout: timeout)
    }

    /// Waits until no read that was asked for so far goes on, those included for which nobody waits
    /// any more; `false` when that takes longer than `timeout` or the task is cancelled.
    public func waitForReads(timeout: Duration) async -> Bool {
        await connection.waitForReads(timeout: timeout)
    }

    /// Whether the process is gone. The next request throws then.
    public var hasEnded: Bool { end != nil }

    var end: AgentEnd? { connection.ended.valueNow }

    /// Waits until the process is gone, and says why; `nil` when the task is cancelled before.
    public func waitForEnd() async -> TransferError? {
        try? await connection.ended.value(within: nil).error
    }

    /// Ends the agent and what it is asked for; waits until its process is gone, 3 s at most before
    /// it is killed. Also in a task that is cancelled.
    public func stop() async { await connection.stop() }

    /// Kills the agent; whether its process is gone, so that it touches no memory any more. It is
    /// not when the kernel takes longer than 30 s to end it. Also in a task that is cancelled.
    @discardableResult
    public func kill() async -> Bool { await connection.kill() }
}
