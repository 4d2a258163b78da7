import Glibc
import Synchronization

/// The signals that ask a process to stop: Ctrl-C, `kill`, and the end of its terminal.
///
/// The first one ends the work in order. Later ones are taken and ignored, so that they cannot cut
/// the clean-up short. Child processes get the default actions back.
enum StopSignals {
    /// How guarded work ended.
    enum Outcome<Value: Sendable>: Sendable {
        case finished(Value)
        /// A signal ended it; the number is the signal's.
        case signalled(CInt)
    }

    /// A worker that does not react gets five seconds in an ordered stop.
    private static let stopSecondsMax: CUnsignedInt = 10
    private static let numbers = [SIGINT, SIGTERM, SIGHUP]
    /// The end of the pipe that the handler writes to.
    private static let writeEnd = Atomic<CInt>(-1)

    /// Takes the signals over. To be called once, before anything is made that needs cleaning up.
    static func install() throws -> AsyncStream<CInt> {
        var ends: [CInt] = [-1, -1]
        // SAFETY: the array has room for the two descriptors, which stay open from here on.
        guard unsafe pipe(&ends) == 0, ends.allSatisfy({ fcntl($0, F_SETFD, FD_CLOEXEC) == 0 })
        else { throw CommandError("cannot make a pipe for signals: \(SystemText.of(errno))") }
        writeEnd.store(ends[1], ordering: .sequentiallyConsistent)
        let readEnd = ends[0]
        let (stream, continuation) = AsyncStream.makeStream(of: CInt.self)
        let thread = SignalThread {
            while let number = read(from: readEnd) { continuation.yield(number) }
        }
        guard thread.start() else { throw CommandError("cannot start a thread for signals") }
        for number in numbers { handle(number) }
        return stream
    }

    /// Runs `work`. When a signal comes first, `stop` runs and the work is awaited; with `cancels`
    /// it is cancelled too, and what does not end within ``stopSecondsMax`` ends with the process.
    static func guarding<Value: Sendable>(
        _ signals: AsyncStream<CInt>, cancels: Bool, stop: @escaping @Sendable () async -> Void,
        work: @escaping @Sendable () async throws -> Value
    ) async throws -> Outcome<Value> {
        try await withThrowingTaskGroup(of: Outcome<Value>.self) { group in
            group.addTask { .finished(try await work()) }
            group.addTask {
                for await number in signals { return .signalled(number) }
                throw CancellationError()
            }
            defer { group.cancelAll() }
            guard let first = try await group.next() else { throw CancellationError() }
            if case .signalled(let number) = first {
                if cancels { endLater(number) }
                await stop()
                if cancels { group.cancelAll() }
                // How the work ends now is a consequence of the signal, and of no interest.
                while await group.nextResult() != nil {}
            }
            return first
        }
    }

    /// Ends the process in the end, whatever waits then: a file system that does not answer, a driver.
    private static func endLater(_ number: CInt) {
        let thread = SignalThread {
            sleep(stopSecondsMax)
            Terminal.standardError.write(
                "error: not everything has ended within \(stopSecondsMax) s of the signal; what is left in "
                    + "shared memory is removed by the next start\n")
            _exit(128 + number)
        }
        // Without a thread it is as before: the work ends by itself.
        _ = thread.start()
    }

    private static func handle(_ number: CInt) {
        var action = sigaction()
        // SAFETY: the handler makes one system call and touches one lock-free atomic, both allowed
        // in a signal handler; it leaves errno as it was.
        unsafe action.__sigaction_handler.sa_handler = { number in
            let saved = errno
            var byte = UInt8(truncatingIfNeeded: number)
            unsafe _ = write(StopSignals.writeEnd.load(ordering: .relaxed), &byte, 1)
            errno = saved
        }
        action.sa_flags = SA_RESTART
        // SAFETY: the action is copied by the call.
        unsafe sigaction(number, &action, nil)
    }

    /// Waits for the next signal; `nil` when the pipe is broken, which nobody can repair.
    private static func read(from descriptor: CInt) -> CInt? {
        var byte: UInt8 = 0
        while true {
            // SAFETY: the buffer is one byte that outlives the call.
            let count = unsafe Glibc.read(descriptor, &byte, 1)
            if count == 1 { return CInt(byte) }
            if count == 0 || errno != EINTR { return nil }
        }
    }
}
