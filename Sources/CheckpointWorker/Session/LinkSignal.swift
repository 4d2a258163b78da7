import CNative
import Glibc
import Synchronization

/// How other threads reach a running ``WorkerLink``: a mailbox, and a pipe that wakes its wait.
public final class LinkSignal: Sendable {
    enum Event: Sendable {
        /// End the update with this error.
        case fail(WorkerError)
        /// So many buckets lie complete in the memory of every worker.
        case available(Int)
        /// A gated stage may begin.
        case permit(SessionStage)
        /// The engine's HTTP call came back with success: its workers must have committed by now.
        case engineAnswered(String)
    }

    private struct State {
        var mailbox: [Event] = []
        var failure: WorkerError?
    }

    private let state = Mutex(State())
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

    /// The first failure that was posted: why the update was ended from outside.
    public var failure: WorkerError? { state.withLock { $0.failure } }

    /// Ends the update on all workers with `error`, unless it is over.
    public func fail(_ error: WorkerError) { post(.fail(error)) }

    /// Tells that the HTTP call of `engine` has answered with success.
    public func engineAnswered(_ engine: String) { post(.engineAnswered(engine)) }

    /// Tells that the first `count` buckets lie complete in the memory of every worker.
    public func available(_ count: Int) { post(.available(count)) }

    /// Lets a gated stage begin.
    public func permit(_ stage: SessionStage) { post(.permit(stage)) }

    private func post(_ event: Event) {
        state.withLock { state in
            state.mailbox.append(event)
            if case .fail(let error) = event { state.failure = state.failure ?? error }
        }
        var byte: UInt8 = 1
        // SAFETY: one byte is read from `byte`. A full pipe already wakes the reader.
        _ = unsafe write(writeDescriptor, &byte, 1)
    }

    /// Empties the mailbox.
    func take() -> [Event] {
        var bytes = [UInt8](repeating: 0, count: 64)
        // SAFETY: the length is that of `bytes`.
        while unsafe read(readDescriptor, &bytes, bytes.count) > 0 {}
        return state.withLock { state in
            defer { state.mailbox = [] }
            return state.mailbox
        }
    }
}
