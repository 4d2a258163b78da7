import CNative
import Glibc
import Synchronization

/// How other threads reach a running ``WorkerLink``: a mailbox, and a pipe that wakes its wait.
public final class LinkSignal: Sendable {
    enum Event: Sendable {
        /// End the update with this error.
        case fail(WorkerError)
        /// The engine's HTTP call came back with success: its workers must have committed by now.
        case engineAnswered(String)
    }

    private let mailbox = Mutex<[Event]>([])
    let readDescriptor: CInt
    private let writeDescriptor: CInt

    public init() throws(WorkerError) {
        var ends: [CInt] = [-1, -1]
        // SAFETY: the call writes two numbers, and `ends` has two.
        guard unsafe ce_pipe(&ends) == 0 else {
            throw WorkerError(.callFailed, "cannot make a pipe: pipe2 failed with errno \(errno)")
        }
        readDescriptor = ends[0]
        writeDescriptor = ends[1]
    }

    deinit {
        close(readDescriptor)
        close(writeDescriptor)
    }

    /// Ends the update on all workers with `error`, unless it is over.
    public func fail(_ error: WorkerError) { post(.fail(error)) }

    /// Tells that the HTTP call of `engine` has answered with success.
    public func engineAnswered(_ engine: String) { post(.engineAnswered(engine)) }

    private func post(_ event: Event) {
        mailbox.withLock { $0.append(event) }
        var byte: UInt8 = 1
        // SAFETY: one byte is read from `byte`. A full pipe already wakes the reader.
        _ = unsafe write(writeDescriptor, &byte, 1)
    }

    /// Why the update was ended, where no link was running that could take it.
    public func takeFailure() -> WorkerError? {
        for case .fail(let error) in take() { return error }
        return nil
    }

    /// Empties the mailbox.
    func take() -> [Event] {
        var bytes = [UInt8](repeating: 0, count: 64)
        // SAFETY: the length is that of `bytes`.
        while unsafe read(readDescriptor, &bytes, bytes.count) > 0 {}
        return mailbox.withLock { events in
            defer { events = [] }
            return events
        }
    }
}
