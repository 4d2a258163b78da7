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
    /// holds has been let go by then. Throws when the system refuses a thread: then nothing has run.
    ///
    /// With `givesWay` the thread runs where nobody else would.
    public static func run<Value: Sendable, Failure: ShortageError>(
        _ name: String, givesWay: Bool = false,
        _ body: @escaping @Sendable () throws(Failure) -> Value
    ) async throws(Failure) -> Value {
        let call = Call(body)
        let result: Result<Value, Failure> = await withCheckedContinuation { continuation in
            do throws(SystemShortage) {
                try start(name, isDetached: true) {
                    if givesWay { giveWay() }
                    let result = call.make()
                    continuation.resume(returning: result)
                }
            } catch {
                continuation.resume(returning: .failure(Failure(error)))
            }
        }
        return try result.get()
    }

    /// The same for a body that only computes: where the system refuses a thread, the calling task runs it.
    public static func run<Value: Sendable>(
        _ name: String, _ body: @escaping @Sendable () -> Value
    ) async -> Value {
        do throws(SystemShortage) {
            return try await run(name) { () throws(SystemShortage) in body() }
        } catch {
            return body()
        }
    }

    /// Calls `body` with 0 ..< `count` on as many threads at once, and returns when all have returned. The
    /// calls of threads that cannot be started are made by the calling thread, so they must not wait for each
    /// other.
    public static func runAll(
        _ name: String, count: Int, _ body: @escaping @Sendable (Int) -> Void
    ) {
        var threads: [pthread_t] = []
        var missed: [Int] = []
        for index in 0..<max(1, count) {
            do throws(SystemShortage) {
                threads.append(try start("\(name)-\(index)", isDetached: false) { body(index) })
            } catch {
                missed.append(index)
            }
        }
        for index in missed { body(index) }
        join(threads)
    }

    /// The same for bodies that wait for each other: all of them run, or none does and this throws.
    public static func runTogether(
        _ name: String, count: Int, _ body: @escaping @Sendable (Int) -> Void
    ) throws(SystemShortage) {
        let begins = BlockingState<Bool?>(nil)
        var threads: [pthread_t] = []
        var shortage: SystemShortage?
        do throws(SystemShortage) {
            for index in 0..<count {
                threads.append(
                    try start("\(name)-\(index)", isDetached: false) {
                        if begins.wait({ $0 }) { body(index) }
                    })
            }
        } catch {
            shortage = error
        }
        begins.update { $0 = shortage == nil }
        join(threads)
        if let shortage { throw shortage }
    }

    /// Throws unless the system gives `count` threads more at once.
    public static func check(count: Int = 1) throws(SystemShortage) {
        try runTogether("ckpt-check", count: count) { _ in }
    }

    private static func join(_ threads: [pthread_t]) {
        // SAFETY: the caller has started each of them to be joined, and calls this once.
        for thread in threads { pthread_join(thread, nil) }
    }

    /// For good, so only on a thread that was started for it.
    private static func giveWay() {
        // Fails never for a thread that only gives way.
        _ = setpriority(__priority_which_t(PRIO_PROCESS.rawValue), 0, lowestPriority)
    }

    private static let lowestPriority: CInt = 19

    @discardableResult
    private static func start(
        _ name: String, isDetached: Bool, _ run: @escaping @Sendable () -> Void
    ) throws(SystemShortage) -> pthread_t {
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
        let code = unsafe pthread_create(&thread, &attributes, entry, body.toOpaque())
        guard code == 0 else {
            unsafe body.release()
            throw ThreadLimits.shortage(errorNumber: code)
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
