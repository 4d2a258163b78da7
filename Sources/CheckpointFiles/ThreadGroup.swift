import Glibc

/// Runs one function on several threads at once and waits for all of them.
enum ThreadGroup {
    private final class Body: Sendable {
        let run: @Sendable () -> Void
        init(_ run: @escaping @Sendable () -> Void) { self.run = run }
    }

    /// Calls `body` on `count` threads; returns when all have returned. A thread that cannot be started
    /// leaves its share to the others; the first share runs on the calling thread if need be.
    static func run(count: Int, _ body: @escaping @Sendable () -> Void) {
        var threads: [pthread_t] = []
        for _ in 0..<max(1, count) {
            var thread = pthread_t()
            let argument = unsafe Unmanaged.passRetained(Body(body))
            // SAFETY: the new thread takes over the retained reference.
            if unsafe pthread_create(&thread, nil, entry, argument.toOpaque()) == 0 {
                threads.append(thread)
            } else {
                unsafe argument.release()
            }
        }
        if threads.isEmpty { body() }
        // SAFETY: each thread was started above and is joined once.
        for thread in threads { pthread_join(thread, nil) }
    }

    private static let entry:
        @convention(c) (UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? =
            { argument in
                // SAFETY: `run` passed a retained `Body`; this thread releases it.
                if let argument = unsafe argument {
                    unsafe Unmanaged<Body>.fromOpaque(argument).takeRetainedValue().run()
                }
                return nil
            }
}
