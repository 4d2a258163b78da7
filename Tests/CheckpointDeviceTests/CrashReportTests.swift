import CheckpointNative
import Glibc
import Testing

/// What a process that a trap or a fault ends has said on standard error.
struct CrashReportTests {
    private func text(_ result: ExitTest.Result?) -> String {
        String(decoding: result?.standardErrorContent ?? [], as: UTF8.self)
    }

    /// Both lines are there, with the thread and with places inside files of code.
    private func check(_ result: ExitTest.Result?, _ start: String) {
        let text = text(result)
        #expect(text.contains("crash: test 1.2.3 is ended by \(start)"), "\(text)")
        #expect(text.contains("in thread "), "\(text)")
        #expect(text.contains("crash: in ") && text.contains("+0x"), "\(text)")
        #expect(text.contains("called from "), "\(text)")
    }

    @Test func aTrap() async {
        let result = await #expect(
            processExitsWith: .signal(SIGILL), observing: [\.standardErrorContent]
        ) {
            CrashReport.install("test 1.2.3")
            // Not known when this is compiled.
            let largest = Int.max - Int(getpid() & 0)
            print(largest + 1)
        }
        check(result, "SIGILL")
    }

    @Test func anAddressThatIsNone() async {
        let result = await #expect(
            processExitsWith: .signal(SIGSEGV), observing: [\.standardErrorContent]
        ) {
            CrashReport.install("test 1.2.3")
            // SAFETY: it is what the test is about.
            unsafe UnsafeMutablePointer<Int>(bitPattern: 64 + Int(getpid() & 0))?.pointee = 1
        }
        check(result, "SIGSEGV at 0x40")
    }

    /// A mapped file that has become shorter: the message names it.
    @Test func aFileThatWasCut() async {
        let result = await #expect(
            processExitsWith: .signal(SIGBUS), observing: [\.standardErrorContent]
        ) {
            CrashReport.install("test 1.2.3")
            let path = "/dev/shm/checkpoint-engine-test-cut-\(getpid())"
            let descriptor = unsafe open(path, O_RDWR | O_CREAT | O_EXCL, mode_t(0o600))
            ftruncate(descriptor, 65_536)
            let mapped = unsafe mmap(nil, 65_536, PROT_READ, MAP_SHARED, descriptor, 0)
            ftruncate(descriptor, 0)
            unsafe unlink(path)
            // SAFETY: it is what the test is about.
            print(unsafe mapped?.load(fromByteOffset: 20_480, as: UInt8.self) ?? 0)
        }
        check(result, "SIGBUS at 0x")
        #expect(text(result).contains("in /dev/shm/checkpoint-engine-test-cut-"))
        #expect(text(result).contains("+0x5000"))
    }

    @Test func aLibraryThatGivesUpOnAThreadOfItsOwn() async {
        let result = await #expect(
            processExitsWith: .signal(SIGABRT), observing: [\.standardErrorContent]
        ) {
            CrashReport.install("test 1.2.3")
            BlockingThread.runAll("reader", count: 1) { _ in abort() }
        }
        check(result, "SIGABRT")
        #expect(text(result).contains("(reader-0)"))
    }

    /// The report takes no room of the stack that is full.
    @Test func aFullStack() async {
        let result = await #expect(
            processExitsWith: .signal(SIGSEGV), observing: [\.standardErrorContent]
        ) { @MainActor in
            CrashReport.install("test 1.2.3")
            print(CrashReportTests.depth(Int(getpid())))
        }
        check(result, "SIGSEGV at 0x")
    }

    // An optimised one is a loop, which takes no stack.
    @_optimize(none)
    fileprivate static func depth(_ number: Int) -> Int {
        number == 0 ? 0 : depth(number &+ 1) &+ number
    }
}
