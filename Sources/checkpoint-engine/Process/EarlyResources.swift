import CheckpointNative
import Dispatch
import Glibc

/// Takes at the start what the process needs of the system all the time.
///
/// The pools that run tasks and look names up start their threads and open their timers when they are first
/// needed. They stand still as long as the system refuses them a thread, with all that waits for them, and end
/// the process when they get no descriptor; in the middle of the work there may be none left. What they have
/// they keep.
enum EarlyResources {
    /// The threads of the signals, of ZeroMQ and of other hosts' connections, and some for the first work.
    private static let ownThreadCount = 8
    private static let fillTimeMax = Duration.milliseconds(200)

    /// Throws when there are not enough threads to begin with.
    static func take() async throws(CommandError) {
        let coreCount = max(1, Int(sysconf(CInt(_SC_NPROCESSORS_ONLN))))
        // For each core one that runs tasks, one that serves connections, and one that looks names up for it.
        let threadCount = 3 * coreCount + ownThreadCount
        do throws(SystemShortage) {
            try BlockingThread.check(count: threadCount)
        } catch {
            throw CommandError("\(threadCount) threads are needed: \(error)")
        }
        await fillTaskPool(coreCount)
        fillQueuePool(coreCount)
        // Both clocks; nobody cancels this.
        try? await Task.sleep(for: .nanoseconds(1), clock: .continuous)
        try? await Task.sleep(for: .nanoseconds(1), clock: .suspending)
    }

    private static func fillTaskPool(_ count: Int) async {
        let meeting = Meeting(count)
        await withTaskGroup { group in
            for _ in 0..<count { group.addTask { meeting.join() } }
        }
    }

    private static func fillQueuePool(_ count: Int) {
        let meeting = Meeting(count + 1)
        for index in 0..<count {
            DispatchQueue(label: "early-\(index)").async { meeting.join() }
        }
        meeting.join()
    }

    /// Holds threads until so many are there, so that each caller takes one of its own.
    private struct Meeting: Sendable {
        let count: Int
        let arrivedCount = BlockingState(0)
        let end = ContinuousClock.now + fillTimeMax

        init(_ count: Int) { self.count = count }

        func join() {
            arrivedCount.update { $0 += 1 }
            while arrivedCount.update({ $0 }) < count, ContinuousClock.now < end { usleep(50) }
        }
    }
}
