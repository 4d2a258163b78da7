import CNative
import Glibc

/// Runs blocking calls on threads of their own, off the cooperative pool.
public enum BlockingThread {
    /// The kernel keeps this many bytes of a thread's name.
    private static let nameByteCountMax = 15
    private static let stackByteCount = 1 << 20

    private final class Body: Sendable {
        let run: @Sendable () -> Void
        init(_ run: @escaping @Sendable () -> Void) { self.run = run }
    }

    /// Starts a thread called `name` for `body` and returns its result; waits as long as it runs.
    public static func run<Value: Sendable, Failure: Error>(
        _ name: String, _ body: @escaping @Sendable () throws(Failure) -> Value
    ) async throws(Failure) -> Value {
        let result: Result<Value, Failure> = await withCheckedContinuation { continuation in
            start(name) {
                continuation.resume(returning: Result { () throws(Failure) in try body() })
            }
        }
        return try result.get()
    }

    private static func start(_ name: String, _ run: @escaping @Sendable () -> Void) {
        var attributes = pthread_attr_t()
        // SAFETY: the attributes are initialised before use and outlive the calls. The body's
        // reference is passed to the new thread, which takes it over.
        unsafe pthread_attr_init(&attributes)

        defer { unsafe pthread_attr_destroy(&attributes) }
        unsafe pthread_attr_setstacksize(&attributes, stackByteCount)
        unsafe pthread_attr_setdetachstate(&attributes, CInt(PTHREAD_CREATE_DETACHED))
        let body = unsafe Unmanaged.passRetained(
            Body {
                setName(name)
                run()
            })
        var thread = pthread_t()
        let code = unsafe pthread_create(&thread, &attributes, entry, body.toOpaque())
        precondition(code == 0, "a process under its thread limit can start a thread: \(code)")
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
