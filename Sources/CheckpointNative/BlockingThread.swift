import CNative
import Glibc
import Synchronization

/// Runs blocking calls on threads of their own, off the cooperative pool.
public enum BlockingThread {
    /// The kernel keeps this many bytes of a thread's name.
    private static let nameByteCountMax = 15
    private static let stackByteCount = 1 << 20

    private final class Body: Sendable {
        let run: @Sendable () -> Void
        init(_ run: @escaping @Sendable () -> Void) { self.run = run }
    }

    /// A call that is made once and then let go, with all that it holds.
    private final class Call<Value: Sendable, Failure: Error>: Sendable {
        private let body: Mutex<(@Sendable () throws(Failure) -> Value)?>
        init(_ body: @escaping @Sendable () throws(Failure) -> Value) { self.body = Mutex(body) }

        func make() -> Result<Value, Failure> {
            let body = body.withLock { $0.take() }
            guard let body else { preconditionFailure("the call is made once") }
            return Result { () throws(Failure) in try body() }
        }
    }

    /// Starts a thread called `name` for `body` and returns its result; waits as long as it runs. What `body`
    /// holds has been let go by then.
    public static func run<Value: Sendable, Failure: Error>(
        _ name: String, _ body: @escaping @Sendable () throws(Failure) -> Value
    ) async throws(Failure) -> Value {
        let call = Call(body)
        let result: Result<Value, Failure> = await withCheckedContinuation { continuation in
            let thread = start(name, isDetached: true) {
                let result = call.make()
                continuation.resume(returning: result)
            }
            precondition(thread != nil, "a process under its thread limit can start a thread")
        }
        return try result.get()
    }

    /// Calls `body` with 0 ..< `count` on as many threads at once, and returns when all have returned. The
    /// calls of threads that cannot be started are made by the calling thread.
    public static func runAll(
        _ name: String, count: Int, _ body: @escaping @Sendable (Int) -> Void
    ) {
        var threads: [pthread_t] = []
        var missed: [Int] = []
        for index in 0..<max(1, count) {
            if let thread = start("\(name)-\(index)", isDetached: false, { body(index) }) {
                threads.append(thread)
            } else {
                missed.append(index)
            }
        }
        for index in missed { body(index) }
        // SAFETY: each thread was started above and is joined once.
        for thread in threads { pthread_join(thread, nil) }
    }

    /// Lets the calling thread run where nobody else would; for good, so only on a thread that was started for it.
    public static func becomeLowPriority() {
        // Fails never for a thread that only gives way.
        _ = setpriority(__priority_which_t(PRIO_PROCESS.rawValue), 0, lowestPriority)
    }

    private static let lowestPriority: CInt = 19

    private static func start(
        _ name: String, isDetached: Bool, _ run: @escaping @Sendable () -> Void
    ) -> pthread_t? {
        var attributes = pthread_attr_t()
        // SAFETY: the attributes are initialised before use and outlive the calls. The body's
        // reference is passed to the new thread, which takes it over.
        unsafe pthread_attr_init(&attributes)

        defer { unsafe pthread_attr_destroy(&attributes) }
        unsafe pthread_attr_setstacksize(&attributes, stackByteCount)
        unsafe pthread_attr_setdetachstate(
            &attributes, CInt(isDetached ? PTHREAD_CREATE_DETACHED : PTHREAD_CREATE_JOINABLE))
        let body = unsafe Unmanaged.passRetained(
            Body {
                setName(name)
                run()
            })
        var thread = pthread_t()
        guard unsafe pthread_create(&thread, &attributes, entry, body.toOpaque()) == 0 else {
            unsafe body.release()
            return nil
        }
        return thread
    }

    private static let entry:
        @convention(c) (UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? =
            { argument in
                // SAFETY: `start` passed a retained `Body`; this thread releases it.
                if let argument = unsafe argument {
                    unsafe Unmanaged<Body>.fromOpaque(argument).takeRetainedValue().run()
                }
                return nil
            }

    private static func setName(_ name: String) {
        let text = String(decoding: name.utf8.prefix(nameByteCountMax), as: UTF8.self)
        // SAFETY: the bridged string lives for the call.
        unsafe ce_thread_name(text)
    }
}
