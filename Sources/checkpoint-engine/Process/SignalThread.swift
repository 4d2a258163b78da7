import Glibc

/// A thread that runs one closure and is never joined: it waits for signals until the process ends.
final class SignalThread: Sendable {
    private let body: @Sendable () -> Void

    init(_ body: @escaping @Sendable () -> Void) {
        self.body = body
    }

    /// Whether the system gave a thread.
    func start() -> Bool {
        var thread = pthread_t()
        // SAFETY: the reference is taken back exactly once, by the thread or, where none was
        // made, here.
        let reference = unsafe Unmanaged.passRetained(self)
        let result = unsafe pthread_create(
            &thread, nil,
            { argument in
                guard let argument = unsafe argument else { return nil }
                let thread = unsafe Unmanaged<SignalThread>.fromOpaque(argument)
                    .takeRetainedValue()
                thread.body()
                return nil
            }, reference.toOpaque())
        guard result == 0 else {
            unsafe reference.release()
            return false
        }
        pthread_detach(thread)
        return true
    }
}
